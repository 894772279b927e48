//! `evaluate`: measures correspondences against exact truth, through the path that serves.

use anyhow::Context;
use densecl_server::batch::Batcher;
use densecl_server::cli::{EvaluateArgs, LogFormat, OutputFormat};
use densecl_server::evaluate::hpatches::{self, Options};
use densecl_server::evaluate::{Report, rgb_patches, text_table};
use densecl_server::http::FeatureExtractor;
use densecl_server::image::RgbImage;
use densecl_server::metrics::Metrics;
use densecl_server::registry::Registry;

use super::output::{print, start_log};

pub(crate) fn evaluate(arguments: &EvaluateArgs) -> anyhow::Result<()> {
    start_log(LogFormat::Text, "warn");
    let batcher = Batcher::start(&arguments.batcher(), &Metrics::new().batch)?;
    let registry = Registry::open(&arguments.repository.models, batcher, &[])?;
    let model = arguments.model.as_deref();
    let extractor = FeatureExtractor::new(&registry, model, arguments.layer.as_deref(), arguments.side)?;
    let mut reports = vec![evaluate_model(arguments, &extractor)?];
    if arguments.rgb_patches {
        reports.push(evaluate_patches(arguments, &extractor)?);
    }
    match arguments.format {
        OutputFormat::Json => print(&serde_json::to_string_pretty(&reports)?),
        OutputFormat::Text => print(text_table(&reports).trim_end()),
    }
}

fn evaluate_model(arguments: &EvaluateArgs, extractor: &FeatureExtractor) -> anyhow::Result<Report> {
    let model = extractor.model();
    let (layer, side_px) = (extractor.layer_name(), extractor.side_px());
    let name = format!("{}/{} {layer} at {side_px} px", model.name(), model.version());
    let mut extract = |image: &RgbImage| extractor.extract(image).map_err(Into::into);
    hpatches::run(&arguments.pairs, &name, &mut extract, &Options::default()).context("the model was not evaluated")
}

/// The baseline without a network, on as many cells as the model has.
fn evaluate_patches(arguments: &EvaluateArgs, extractor: &FeatureExtractor) -> anyhow::Result<Report> {
    let (side_px, stride_px) = (extractor.side_px(), extractor.stride_px());
    let name = format!("RGB patches at {side_px} px");
    let mut extract = |image: &RgbImage| rgb_patches(image, side_px, stride_px).map_err(Into::into);
    hpatches::run(&arguments.pairs, &name, &mut extract, &Options::default()).context("the patches were not evaluated")
}
