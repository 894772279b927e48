//! `GET /models`: what is served.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use super::problem_responses::{ListProblems, LookupProblems};
use super::state::AppState;
use crate::error::ApiError;
use crate::registry::{Provider, Registry, ServedModel};

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelsDocument {
    /// By name and ascending version.
    models: Vec<ModelDocument>,
}

/// One version of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelDocument {
    /// Its name in the repository.
    name: String,
    /// Its version; the highest is served by default.
    version: u32,
    /// `ready`.
    state: &'static str,
    /// What it really runs on: `cpu`, or `cuda:` and a number; several GPUs are separated by commas.
    provider: String,
    /// What the model says of itself: layers, normalisation, training, licence.
    #[schema(value_type = Object)]
    manifest: densecl_models::Manifest,
}

impl ModelDocument {
    fn new(registry: &Registry, model: &ServedModel) -> Self {
        Self {
            name: model.name().to_owned(),
            version: model.version(),
            // A model is not in the registry before it is.
            state: "ready",
            provider: devices(registry.providers()),
            manifest: model.manifest().clone(),
        }
    }
}

/// Each device once: several engines may share one.
fn devices(providers: &[Provider]) -> String {
    let mut names: Vec<String> = providers.iter().map(Provider::to_string).collect();
    names.dedup();
    names.join(",")
}

/// All models with their manifests.
#[utoipa::path(
    get,
    path = "/models",
    tag = "models",
    responses(
        (status = 200, description = "The models", body = ModelsDocument),
        ListProblems,
    )
)]
pub(super) async fn list_models(State(app): State<AppState>) -> Result<Json<ModelsDocument>, ApiError> {
    let registry = app.registry()?;
    let models = registry.all().map(|model| ModelDocument::new(registry, model)).collect();
    Ok(Json(ModelsDocument { models }))
}

/// The newest version of one model.
#[utoipa::path(
    get,
    path = "/models/{name}",
    tag = "models",
    params(("name" = String, Path, description = "Name of the model")),
    responses(
        (status = 200, description = "The model", body = ModelDocument),
        LookupProblems,
    )
)]
pub(super) async fn get_model(
    State(app): State<AppState>,
    name: Result<Path<String>, axum::extract::rejection::PathRejection>,
) -> Result<Json<ModelDocument>, ApiError> {
    // The only failure is a name that is not UTF-8, and no model has such a name.
    let Path(name) = name.map_err(|_| ApiError::NoSuchPath)?;
    let registry = app.registry()?;
    Ok(Json(ModelDocument::new(registry, registry.find(Some(&name), None)?)))
}
