//! Triton's extension for model repositories: what there is, and loading and unloading it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Request, State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::observe::RequestContext;
use super::super::problem_responses::AdministrationProblems;
use super::super::state::AppState;
use super::super::upload::read_optional;
use super::metadata::ModelPath;
use crate::error::ApiError;
use densecl_inference::registry::{ChangeError, ModelLoader, VersionState};

/// What may be said with a look at the repository.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct IndexRequest {
    /// Whether to list only what is ready.
    #[serde(default)]
    ready: bool,
}

/// A version in the repository.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct IndexEntry {
    name: String,
    version: String,
    state: IndexState,
    /// Why it is unavailable; of one that is ready, what is wrong with the file that should have replaced it.
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

/// What may be said with loading or unloading.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct ChangeRequest {
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    parameters: Option<Map<String, Value>>,
}

impl ChangeRequest {
    /// Models come from the repository alone.
    fn check(&self) -> Result<(), ApiError> {
        match self.parameters.iter().flat_map(Map::keys).find(|name| *name == "config" || name.starts_with("file:")) {
            Some(name) => Err(ApiError::MalformedInference(format!(
                "`{name}` is not supported here: put the model into the repository, then load it without"
            ))),
            None => Ok(()),
        }
    }
}

/// All versions of all models in the repository, also those that cannot be served.
#[utoipa::path(
    post,
    path = "/v2/repository/index",
    tag = "open inference protocol",
    request_body = Option<IndexRequest>,
    responses((status = 200, description = "The versions", body = Vec<IndexEntry>), AdministrationProblems)
)]
pub(super) async fn post_index(
    State(app): State<AppState>,
    Extension(context): Extension<RequestContext>,
    request: Request,
) -> Result<Json<Vec<IndexEntry>>, ApiError> {
    let asked: IndexRequest = read(&app, &context, request).await?;
    let registry = app.registry()?;
    let entry = |status: densecl_inference::registry::VersionStatus<'_>| IndexEntry {
        name: status.name.to_owned(),
        version: status.version.to_string(),
        state: status.state.into(),
        reason: status.reason.unwrap_or_default().to_owned(),
    };
    let wanted = registry.versions().filter(|status| !asked.ready || status.state == VersionState::Ready);
    Ok(Json(wanted.map(entry).collect()))
}

/// Loads a model from the repository: every version of it that is new, changed or not served.
///
/// It is read, checked and run before it takes the place of the old one, which answers until then. If that fails the
/// old one stays, and the reply says why.
#[utoipa::path(
    post,
    path = "/v2/repository/models/{name}/load",
    tag = "open inference protocol",
    params(ModelPath),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "It is served"), AdministrationProblems)
)]
pub(super) async fn post_load(
    State(app): State<AppState>,
    Extension(context): Extension<RequestContext>,
    ModelPath { name }: ModelPath,
    request: Request,
) -> Result<(), ApiError> {
    read::<ChangeRequest>(&app, &context, request).await?.check()?;
    change(app, context, move |models| models.load(&name)).await
}

/// Unloads all versions of a model, until it is loaded again.
///
/// What is under way is finished; its memory is free when the last request that uses it is.
#[utoipa::path(
    post,
    path = "/v2/repository/models/{name}/unload",
    tag = "open inference protocol",
    params(ModelPath),
    request_body = Option<ChangeRequest>,
    responses((status = 200, description = "It is not served any more"), AdministrationProblems)
)]
pub(super) async fn post_unload(
    State(app): State<AppState>,
    Extension(context): Extension<RequestContext>,
    ModelPath { name }: ModelPath,
    request: Request,
) -> Result<(), ApiError> {
    read::<ChangeRequest>(&app, &context, request).await?.check()?;
    change(app, context, move |models| models.unload(&name)).await
}

/// Makes a change on a thread that may block. It comes to its end also if nobody waits for it any more.
async fn change(
    app: AppState,
    context: RequestContext,
    change: impl FnOnce(&ModelLoader) -> Result<(), ChangeError> + Send + 'static,
) -> Result<(), ApiError> {
    let limit = app.config().limits.timeout;
    let done = tokio::task::spawn_blocking(move || Ok(change(app.models()?)?));
    context.answer(limit, async { done.await.map_err(ApiError::internal)? }).await
}

/// The JSON object of a body, if there is one.
async fn read<T: Default + for<'de> Deserialize<'de>>(
    app: &AppState,
    context: &RequestContext,
    request: Request,
) -> Result<T, ApiError> {
    let limits = app.config().limits;
    let body: Bytes = context.receive(limits.body_timeout, read_optional(request, limits.max_body_bytes)).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| ApiError::MalformedInference(format!("the body cannot be read: {error}")))
}
