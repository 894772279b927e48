//! Triton's extension for model repositories: lists, loads and unloads models.

use axum::Json;
use axum::extract::State;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::metadata::ModelPath;
use crate::http::problem::responses::{AdministrationProblems, IndexProblems};
use crate::http::request::{ReadBody, ReadRequest, Reading, RequestError, parse_json, read_optional};
use crate::http::state::AppState;
use crate::serving::{ServingError, WorkContext};
use densecl_inference::registry::{ChangeError, ModelLoader, VersionState};

/// Largest body of the requests here, which are a few words.
const MAX_BODY_BYTES: u64 = 64 << 10;

/// Optional body of a request for the index.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct IndexRequest {
    /// List only versions that are ready.
    #[serde(default)]
    ready: bool,
}

/// A version in the repository.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IndexEntry {
    name: String,
    version: String,
    state: IndexState,
    /// Reason why the version is unavailable or, if it is ready, why the file that should have replaced it was refused.
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
enum IndexState {
    Loading,
    Ready,
    Unavailable,
}

impl From<VersionState> for IndexState {
    fn from(state: VersionState) -> Self {
        match state {
            VersionState::Loading => Self::Loading,
            VersionState::Ready => Self::Ready,
            VersionState::Unavailable => Self::Unavailable,
        }
    }
}

/// Optional body of a request that loads or unloads a model.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct ChangeRequest {
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
}

impl ChangeRequest {
    /// Refuses models in the request: they are loaded from the repository only.
    fn check(&self) -> Result<(), RequestError> {
        match self.parameters.iter().flat_map(Map::keys).find(|name| *name == "config" || name.starts_with("file:")) {
            Some(name) => Err(RequestError::MalformedInference(format!(
                "`{name}` is not supported here: put the model into the repository, then load it without"
            ))),
            None => Ok(()),
        }
    }
}

/// All versions of all models in the repository, including those that cannot be served.
#[utoipa::path(
    post,
    path = "/v2/repository/index",
    tag = "open inference protocol",
    request_body = Option<IndexRequest>,
    responses((status = 200, description = "The versions", body = Vec<IndexEntry>), IndexProblems)
)]
pub(super) async fn post_index(
    State(app): State<AppState>,
    ReadRequest { body: OptionalObject(request), .. }: ReadRequest<OptionalObject<IndexRequest>>,
) -> Result<Json<Vec<IndexEntry>>, RequestError> {
    let registry = app.service().registry()?;
    let entry = |status: densecl_inference::registry::VersionStatus<'_>| IndexEntry {
        name: status.name.to_owned(),
        version: status.version.to_string(),
        state: status.state.into(),
        reason: status.reason.unwrap_or_default().to_owned(),
    };
    let listed = registry.versions().filter(|status| !request.ready || status.state == VersionState::Ready);
    Ok(Json(listed.map(entry).collect()))
}

/// Loads a model from the repository: every version of it that is new, changed or not served.
///
/// A version is read, checked and warmed up before it replaces the old one, which is served until then. If that fails,
/// the old one stays and the reply tells the reason.
#[utoipa::path(
    post,
    path = "/v2/repository/models/{name}/load",
    tag = "open inference protocol",
    params(ModelPath),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "The model is served"), AdministrationProblems)
)]
pub(super) async fn post_load(
    State(app): State<AppState>,
    ModelPath { name }: ModelPath,
    ReadRequest { body: OptionalObject(request), context, .. }: ReadRequest<OptionalObject<ChangeRequest>>,
) -> Result<(), RequestError> {
    request.check()?;
    run_change(app, context.work, move |models| models.load(&name)).await
}

/// Unloads all versions of a model, until it is loaded again.
///
/// Requests that have begun are finished. The model's memory is released with the last request that uses it.
#[utoipa::path(
    post,
    path = "/v2/repository/models/{name}/unload",
    tag = "open inference protocol",
    params(ModelPath),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "The model is no longer served"), AdministrationProblems)
)]
pub(super) async fn post_unload(
    State(app): State<AppState>,
    ModelPath { name }: ModelPath,
    ReadRequest { body: OptionalObject(request), context, .. }: ReadRequest<OptionalObject<ChangeRequest>>,
) -> Result<(), RequestError> {
    request.check()?;
    run_change(app, context.work, move |models| models.unload(&name)).await
}

/// Runs a change on a blocking thread. It completes even if the request is dropped.
async fn run_change(
    app: AppState,
    work: WorkContext,
    change: impl FnOnce(&ModelLoader) -> Result<(), ChangeError> + Send + 'static,
) -> Result<(), RequestError> {
    let limit = app.service().limits().timeout;
    let done = tokio::task::spawn_blocking(move || Ok(change(app.service().models()?)?));
    work.answer(limit, async { done.await.map_err(ServingError::internal) }).await?
}

/// A JSON object, or the default for a request without a body.
pub(super) struct OptionalObject<T>(T);

impl<T: Default + DeserializeOwned> ReadBody for OptionalObject<T> {
    async fn read(app: &AppState, reading: Reading) -> Result<Self, RequestError> {
        let limit = app.service().limits().max_body_bytes.min(MAX_BODY_BYTES);
        let body = read_optional(reading.request, limit).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        parse_json(&body).map(Self).map_err(|error| {
            RequestError::MalformedInference(format!("the body is not the JSON object that this path takes: {error}"))
        })
    }
}
