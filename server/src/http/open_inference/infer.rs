//! `POST /v2/models/{name}/infer`: images as tensors in, outputs as tensors out.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::future::try_join_all;

use super::super::admission::Admitted;
use super::super::docs::Binary;
use super::super::observe::{RequestContext, Stage};
use super::super::problem_responses::InferenceProblems;
use super::super::reply_body::PIECES_BYTES;
use super::super::state::AppState;
use super::super::upload::{content_length, header_text, read_whole};
use super::inflate::ContentEncoding;
use super::metadata::{ModelPath, VersionPath};
use super::reply::{HEADER_LENGTH, Reply};
use super::request::{InferenceRequest, MalformedInference, parse};
use super::wanted::Wanted;
use crate::error::ApiError;
use densecl_inference::registry::{ModelInput, ServedModel};

/// A request as JSON. In the binary form a tensor has `binary_data_size` among its parameters instead of `data`, and
/// its bytes follow the JSON, whose length `Inference-Header-Content-Length` says.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct InferenceObject {
    /// Comes back in the reply.
    id: Option<String>,
    /// `binary_data_output`: whether outputs come as bytes.
    #[schema(value_type = Option<Object>)]
    parameters: Option<()>,
    /// One, `images`.
    #[schema(min_items = 1, max_items = 1)]
    inputs: Vec<InputObject>,
    /// All outputs if not given.
    outputs: Option<Vec<OutputObject>>,
}

/// The images.
#[derive(utoipa::ToSchema)]
#[schema(as = InferenceInput)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct InputObject {
    /// `images`
    #[schema(pattern = "^images$")]
    name: String,
    /// `UINT8`
    #[schema(pattern = "^UINT8$")]
    datatype: String,
    /// `[N, height, width, 3]`; height and width are multiples of 32.
    #[schema(min_items = 4, max_items = 4, minimum = 0)]
    shape: Vec<u64>,
    /// `binary_data_size`: bytes of the tensor behind the JSON.
    #[schema(value_type = Option<Object>)]
    parameters: Option<()>,
    /// RGB, flat or nested as the shape is.
    #[schema(value_type = Option<Vec<Object>>)]
    data: Option<()>,
}

/// An output that is asked for.
#[derive(utoipa::ToSchema)]
#[schema(as = InferenceOutput)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct OutputObject {
    /// A layer of the model, or `global`.
    name: String,
    /// `binary_data`: whether it comes as bytes.
    #[schema(value_type = Option<Object>)]
    parameters: Option<()>,
}

/// A reply as JSON. In the binary form an output has `binary_data_size` among its parameters instead of `data`.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the object, which is written piece by piece")]
pub(super) struct InferenceReply {
    model_name: String,
    model_version: String,
    /// That of the request.
    id: Option<String>,
    /// Name, `datatype` (`FP32`), `shape` and `data` of each output.
    #[schema(value_type = Vec<Object>)]
    outputs: Vec<()>,
}

/// Runs the newest version of a model on images.
///
/// The images are given as the model takes them, `UINT8 [N, height, width, 3]`, and the outputs are what it computes,
/// un-normalised. `POST /features` takes pictures as they are.
#[utoipa::path(
    post,
    path = "/v2/models/{name}/infer",
    tag = "open inference protocol",
    params(ModelPath),
    request_body(content((InferenceObject = "application/json"), (Binary = "application/octet-stream"))),
    responses(
        (
            status = 200,
            description = "The outputs",
            content((InferenceReply = "application/json"), (Binary = "application/octet-stream")),
        ),
        InferenceProblems,
    )
)]
pub(super) async fn post_infer(
    State(app): State<AppState>,
    Extension(context): Extension<RequestContext>,
    ModelPath { name }: ModelPath,
    request: Request,
) -> Result<Response, ApiError> {
    let model = app.registry()?.find(Some(&name), None)?.clone();
    infer(app, context, model, request).await
}

/// Runs one version of a model on images; see `/v2/models/{name}/infer`.
#[utoipa::path(
    post,
    path = "/v2/models/{name}/versions/{version}/infer",
    tag = "open inference protocol",
    params(VersionPath),
    request_body(content((InferenceObject = "application/json"), (Binary = "application/octet-stream"))),
    responses(
        (
            status = 200,
            description = "The outputs",
            content((InferenceReply = "application/json"), (Binary = "application/octet-stream")),
        ),
        InferenceProblems,
    )
)]
pub(super) async fn post_infer_version(
    State(app): State<AppState>,
    Extension(context): Extension<RequestContext>,
    path: VersionPath,
    request: Request,
) -> Result<Response, ApiError> {
    let model = app.registry()?.find(Some(&path.name), Some(path.number()?))?.clone();
    infer(app, context, model, request).await
}

async fn infer(
    app: AppState,
    context: RequestContext,
    model: ServedModel,
    request: Request,
) -> Result<Response, ApiError> {
    let limits = app.config().limits;
    if content_length(&request).is_some_and(|length| length > limits.max_body_bytes) {
        return Err(ApiError::BodyTooLarge { limit: limits.max_body_bytes });
    }
    let form = BodyForm::of(&request)?;
    let body = app.arriving_body();
    let bytes = read_whole(body.of(request), limits.max_body_bytes);
    let bytes = context.receive(limits.body_timeout, bytes).await.map_err(|error| body.explain(error))?;
    let timings = context.timings.clone();
    // Held until the images are copied out of it.
    let room = body.clone();
    let read = move || {
        let whole = form.encoding.inflate(bytes, limits.max_body_bytes, &room)?;
        Ok::<_, ApiError>(parse(&whole, form.header_length)?)
    };
    let asked = app.cpu().run(move || timings.measure(Stage::Decode, read)).await??;
    let wanted = Wanted::of(&asked, &model, &limits)?;
    context.notes.concerns(&model, &wanted.layers);
    let admitted = app.admit();
    app.take_places(&admitted, wanted.count, context.deadline)?;
    let answer = answer(app.clone(), context.clone(), Job { model, wanted, asked, admitted: admitted.clone() });
    Ok(admitted.until_sent(context.answer(limits.timeout, answer).await?))
}

/// A request that was taken on.
struct Job {
    model: ServedModel,
    wanted: Wanted,
    asked: InferenceRequest,
    admitted: Admitted,
}

async fn answer(app: AppState, context: RequestContext, job: Job) -> Result<Response, ApiError> {
    let Job { model, wanted, asked, admitted } = job;
    admitted.reserve(wanted.memory_bytes(PIECES_BYTES))?;
    let InferenceRequest { id, images, .. } = asked;
    let inputs = wanted.inputs(&images);
    drop(images);
    // All at once: images of equal shape share a run.
    let run = async |input: ModelInput| -> Result<_, ApiError> {
        let reply = model.run(input, wanted.layers.clone(), context.deadline).await?;
        context.timings.add_run(reply.queued, reply.inference);
        Ok(reply.layers)
    };
    let layers = try_join_all(inputs.into_iter().map(run)).await?;
    let (timings, cpu) = (context.timings.clone(), app.cpu().clone());
    let reply = Reply { model: model.clone(), id, wanted };
    app.cpu().run(move || timings.measure(Stage::Encode, || reply.write(layers, cpu))).await?
}

/// How a body is to be read.
#[derive(Clone, Copy)]
struct BodyForm {
    encoding: ContentEncoding,
    header_length: Option<usize>,
}

impl BodyForm {
    fn of(request: &Request) -> Result<Self, ApiError> {
        let encoding = ContentEncoding::of(header_text(request, &axum::http::header::CONTENT_ENCODING)?)?;
        let header_length = header_text(request, &HEADER_LENGTH)?.map(|text| {
            let wrong =
                || ApiError::MalformedInference(format!("Inference-Header-Content-Length: `{text}` is no length"));
            text.parse().map_err(|_| wrong())
        });
        Ok(Self { encoding, header_length: header_length.transpose()? })
    }
}

impl From<MalformedInference> for ApiError {
    fn from(error: MalformedInference) -> Self {
        Self::MalformedInference(error.to_string())
    }
}
