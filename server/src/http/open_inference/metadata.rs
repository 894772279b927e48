//! Metadata and readiness of the server and its models.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::request::{INPUT, INPUT_TYPE};
use crate::http::problem::Problem;
use crate::http::problem::responses::{LookupProblems, RateProblems};
use crate::http::request::RequestError;
use crate::http::state::{AppState, Phase};
use crate::serving::ServingError;
use densecl_inference::registry::{Registry, ServedModel};
use densecl_models::GLOBAL;

/// Size of an axis that may have any size.
const DYNAMIC: i64 = -1;

/// A model.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ModelPath {
    /// Name of the model
    pub(super) name: String,
}

/// A version of a model.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct VersionPath {
    /// Name of the model
    pub(super) name: String,
    /// The version
    pub(super) version: String,
}

impl VersionPath {
    /// The version as a number.
    ///
    /// # Errors
    /// [`RequestError::NoSuchPath`] if it is no number.
    pub(super) fn number(&self) -> Result<u32, RequestError> {
        self.version.parse().map_err(|_| RequestError::NoSuchPath)
    }
}

// The only failure is a name that is not UTF-8, and no model has such a name.
impl<S: Send + Sync> FromRequestParts<S> for ModelPath {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RequestError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(path)| path).map_err(|_| RequestError::NoSuchPath)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for VersionPath {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RequestError> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(path)| path).map_err(|_| RequestError::NoSuchPath)
    }
}

/// The newest version of the model that the path names.
pub(super) struct NewestVersion(pub(super) ServedModel);

impl FromRequestParts<AppState> for NewestVersion {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, RequestError> {
        let ModelPath { name } = ModelPath::from_request_parts(parts, app).await?;
        Ok(Self(app.service().registry()?.find(Some(&name), None)?.clone()))
    }
}

/// The version of a model that the path names.
pub(super) struct NamedVersion(pub(super) ServedModel);

impl FromRequestParts<AppState> for NamedVersion {
    type Rejection = RequestError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, RequestError> {
        let path = VersionPath::from_request_parts(parts, app).await?;
        Ok(Self(app.service().registry()?.find(Some(&path.name), Some(path.number()?))?.clone()))
    }
}

/// The server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    /// Supported extensions of the protocol.
    extensions: [&'static str; 2],
}

/// Inputs and outputs of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelMetadata {
    name: String,
    /// Versions that are ready.
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// A tensor of a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TensorMetadata {
    name: String,
    datatype: &'static str,
    /// Sizes of the axes; -1 for any size. Height and width of images are multiples of 32.
    shape: Vec<i64>,
}

impl ModelMetadata {
    fn new(registry: &Registry, model: &ServedModel) -> Self {
        let versions = registry.all().filter(|other| other.name() == model.name());
        Self {
            name: model.name().to_owned(),
            versions: versions.map(|model| model.version().to_string()).collect(),
            platform: "onnxruntime_onnx",
            inputs: vec![TensorMetadata {
                name: INPUT.to_owned(),
                datatype: INPUT_TYPE,
                shape: vec![DYNAMIC, DYNAMIC, DYNAMIC, 3],
            }],
            outputs: model.outputs().map(|name| output(model, name)).collect(),
        }
    }
}

fn output(model: &ServedModel, name: &str) -> TensorMetadata {
    let manifest = model.manifest();
    let shape = if name == GLOBAL {
        vec![DYNAMIC, manifest.global.map_or(DYNAMIC, i64::from)]
    } else {
        vec![DYNAMIC, manifest.layer(name).map_or(DYNAMIC, |layer| i64::from(layer.channels)), DYNAMIC, DYNAMIC]
    };
    TensorMetadata { name: name.to_owned(), datatype: "FP32", shape }
}

/// The server's name, version and extensions.
#[utoipa::path(
    get,
    path = "/v2",
    tag = "open inference protocol",
    responses((status = 200, description = "The server", body = ServerMetadata), RateProblems)
)]
pub(super) async fn get_server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        extensions: ["binary_tensor_data", "model_repository"],
    })
}

/// Liveness, as `/livez`.
#[utoipa::path(
    get,
    path = "/v2/health/live",
    tag = "open inference protocol",
    responses((status = 200, description = "The process works"))
)]
pub(super) async fn get_live() {}

/// Readiness, as `/readyz`.
#[utoipa::path(
    get,
    path = "/v2/health/ready",
    tag = "open inference protocol",
    responses(
        (status = 200, description = "The server takes requests"),
        (status = 503, description = "The server is loading, or shutting down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_ready(State(app): State<AppState>) -> Result<(), RequestError> {
    match app.phase() {
        Phase::Ready => Ok(()),
        Phase::Loading => Err(ServingError::Loading.into()),
        Phase::Draining => Err(ServingError::Draining.into()),
    }
}

/// Inputs and outputs of the newest version of a model.
#[utoipa::path(
    get,
    path = "/v2/models/{name}",
    tag = "open inference protocol",
    params(ModelPath),
    responses((status = 200, description = "The model", body = ModelMetadata), LookupProblems)
)]
pub(super) async fn get_model(
    State(app): State<AppState>,
    path: ModelPath,
) -> Result<Json<ModelMetadata>, RequestError> {
    let registry = app.service().registry()?;
    Ok(Json(ModelMetadata::new(&registry, registry.find(Some(&path.name), None)?)))
}

/// Inputs and outputs of a version of a model.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/versions/{version}",
    tag = "open inference protocol",
    params(VersionPath),
    responses((status = 200, description = "The model", body = ModelMetadata), LookupProblems)
)]
pub(super) async fn get_model_version(
    State(app): State<AppState>,
    path: VersionPath,
) -> Result<Json<ModelMetadata>, RequestError> {
    let registry = app.service().registry()?;
    let model = registry.find(Some(&path.name), Some(path.number()?))?;
    Ok(Json(ModelMetadata::new(&registry, model)))
}

/// Readiness of a model: 200 if one of its versions is served.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/ready",
    tag = "open inference protocol",
    params(ModelPath),
    responses((status = 200, description = "The model is ready"), LookupProblems)
)]
pub(super) async fn get_model_ready(State(app): State<AppState>, path: ModelPath) -> Result<(), RequestError> {
    app.service().registry()?.find(Some(&path.name), None)?;
    Ok(())
}

/// Readiness of a version of a model: 200 if it is served.
#[utoipa::path(
    get,
    path = "/v2/models/{name}/versions/{version}/ready",
    tag = "open inference protocol",
    params(VersionPath),
    responses((status = 200, description = "The version is ready"), LookupProblems)
)]
pub(super) async fn get_model_version_ready(
    State(app): State<AppState>,
    path: VersionPath,
) -> Result<(), RequestError> {
    app.service().registry()?.find(Some(&path.name), Some(path.number()?))?;
    Ok(())
}
