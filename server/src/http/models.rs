//! `GET /models`: the models in the repository and their states.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::responses::{ListProblems, LookupProblems};
use super::request::RequestError;
use super::state::AppState;
use densecl_inference::registry::{LookupError, Provider, Registry, VersionState, VersionStatus};

/// Routes that describe the models.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_models)).routes(routes!(get_model))
}

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelsDocument {
    /// Ordered by name and ascending version.
    models: Vec<ModelDocument>,
}

/// One version of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelDocument {
    /// Name in the repository.
    name: String,
    /// Version; the highest that is ready is served by default.
    version: u32,
    /// Only a version that is ready answers.
    state: ModelState,
    /// Reason why the version is unavailable or, if it is ready, why the file that should have replaced it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Device that the model runs on: `cpu`, or `cuda:` and a number; several GPUs are separated by commas.
    provider: String,
    /// Manifest of the model: layers, normalisation, training, licence. Only if it is ready.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<densecl_models::Manifest>,
}

/// State of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ModelState {
    Loading,
    Ready,
    Unavailable,
}

impl From<VersionState> for ModelState {
    fn from(state: VersionState) -> Self {
        match state {
            VersionState::Loading => Self::Loading,
            VersionState::Ready => Self::Ready,
            VersionState::Unavailable => Self::Unavailable,
        }
    }
}

impl ModelDocument {
    fn new(registry: &Registry, version: VersionStatus<'_>) -> Self {
        Self {
            name: version.name.to_owned(),
            version: version.version,
            state: version.state.into(),
            reason: version.reason.map(str::to_owned),
            provider: device_names(registry.providers()),
            manifest: version.served.map(|model| model.manifest().clone()),
        }
    }
}

/// Names each device once, as several engines may share one.
fn device_names(providers: &[Provider]) -> String {
    let mut names: Vec<String> = providers.iter().map(Provider::to_string).collect();
    names.dedup();
    names.join(",")
}

/// All models with their manifests; those that cannot be served come with the reason.
#[utoipa::path(
    get,
    path = "/models",
    tag = "models",
    responses(
        (status = 200, description = "The models", body = ModelsDocument),
        ListProblems,
    )
)]
pub(super) async fn list_models(State(app): State<AppState>) -> Result<Json<ModelsDocument>, RequestError> {
    let registry = app.service().registry()?;
    let models = registry.versions().map(|version| ModelDocument::new(&registry, version)).collect();
    Ok(Json(ModelsDocument { models }))
}

/// The newest ready version of one model, or its newest version if none is ready.
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
) -> Result<Json<ModelDocument>, RequestError> {
    // The only failure is a name that is not UTF-8, and no model has such a name.
    let Path(name) = name.map_err(|_| RequestError::NoSuchPath)?;
    let registry = app.service().registry()?;
    let version = match registry.find(Some(&name), None) {
        Ok(served) => served.version(),
        Err(LookupError::NotLoaded { version, .. }) => version,
        Err(error) => return Err(error.into()),
    };
    let status = registry.versions().find(|status| status.name == name && status.version == version);
    Ok(Json(ModelDocument::new(&registry, status.ok_or(RequestError::NoSuchPath)?)))
}
