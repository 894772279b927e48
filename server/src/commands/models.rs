//! `models` and `openapi`: print the models of a repository and the OpenAPI document, without an engine.

use anyhow::Context;
use densecl_models::{Manifest, OnnxModel, repository};
use densecl_server::cli::{ModelsArgs, OutputFormat};
use densecl_server::http;

use super::output::print;

pub(crate) fn openapi() -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(&http::document()).context("cannot write the document")?)
}

pub(crate) fn models(arguments: &ModelsArgs) -> anyhow::Result<()> {
    let mut manifests = Vec::new();
    for found in repository::scan(&arguments.repository.models)? {
        let model = OnnxModel::open(&found.path).with_context(|| format!("cannot read {}", found.path.display()))?;
        manifests.push(model.manifest().clone());
    }
    match arguments.format {
        OutputFormat::Json => print(&serde_json::to_string_pretty(&manifests)?),
        OutputFormat::Text => print(&manifests.iter().map(describe).collect::<Vec<_>>().join("\n")),
    }
}

fn describe(manifest: &Manifest) -> String {
    let layer = |layer: &densecl_models::Layer| format!("{} ({}, stride {})", layer.name, layer.channels, layer.stride);
    let layers: Vec<String> = manifest.layers.iter().map(layer).collect();
    [
        format!("{} {}: {}, {}", manifest.name, manifest.version, manifest.architecture, manifest.method),
        format!("    layers: {}", layers.join(", ")),
        format!("    default: {} at {} px", manifest.default_layer, manifest.default_side),
        format!("    licence: {}", manifest.licence),
    ]
    .join("\n")
}
