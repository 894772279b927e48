//! `POST /v2/models/{name}/infer`: images as tensors in, outputs as tensors out.

use axum::extract::{Request, State};
use axum::response::Response;
use densecl_inference::registry::{ModelInput, ServedModel};
use futures_util::future::try_join_all;

use super::inflate::ContentEncoding;
use super::metadata::{ModelPath, NamedVersion, NewestVersion, VersionPath};
use super::reply::{HEADER_LENGTH, InferenceReplyWriter};
use super::request::{InferenceRequest, MalformedInference, parse};
use super::resolved_outputs::ResolvedOutputs;
use super::schema::{InferenceObject, InferenceReply};
use crate::http::docs::Binary;
use crate::http::problem::responses::InferenceProblems;
use crate::http::reply::{PIECES_BYTES, hold_until_sent};
use crate::http::request::{ReadBody, ReadRequest, Reading, RequestError, content_length, header_text, read_whole};
use crate::http::state::AppState;
use crate::serving::admission::Admitted;
use crate::serving::{Service, ServingError, Stage, WorkContext};

/// The body of a request.
pub(super) struct InferenceBody(InferenceRequest);

impl ReadBody for InferenceBody {
    async fn read(app: &AppState, reading: Reading) -> Result<Self, RequestError> {
        let Reading { request, context, memory } = reading;
        let limit = app.service().limits().max_body_bytes;
        if content_length(&request).is_some_and(|length| length > limit) {
            return Err(RequestError::BodyTooLarge { limit });
        }
        let form = BodyForm::from_request(&request)?;
        let body = read_whole(request, limit).await?;
        let timings = context.work.timings.clone();
        let parse = move || {
            let whole = form.encoding.inflate(body, limit, &memory)?;
            Ok::<_, RequestError>(parse(&whole, form.header_length)?)
        };
        app.service().cpu().run(move || timings.measure(Stage::Decode, parse)).await?.map(Self)
    }
}

/// Runs the newest version of a model on images.
///
/// The images have the model's input format, `UINT8 [N, height, width, 3]`, and the outputs are the model's, not
/// normalised. The parameter `pool` of the request or of an output (`mean`, `max` or `gem`, as in `POST /features`) makes
/// one vector of a layer, `[N, C]`; with `normalize` (`l2`) vectors have length 1. `POST /features` takes image files of
/// any size.
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
    NewestVersion(model): NewestVersion,
    request: ReadRequest<InferenceBody>,
) -> Result<Response, RequestError> {
    infer(&app, model, request).await
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
    NamedVersion(model): NamedVersion,
    request: ReadRequest<InferenceBody>,
) -> Result<Response, RequestError> {
    infer(&app, model, request).await
}

async fn infer(
    app: &AppState,
    model: ServedModel,
    request: ReadRequest<InferenceBody>,
) -> Result<Response, RequestError> {
    let ReadRequest { body: InferenceBody(inference), context, .. } = &request;
    let service = app.service();
    let limits = *service.limits();
    let outputs = ResolvedOutputs::new(inference, &model, &limits)?;
    context.notes.set_subject(&model, &outputs.layers);
    let admitted = service.admit();
    service.take_slots(&admitted, outputs.count, context.work.deadline)?;
    let ReadRequest { body: InferenceBody(request), context, .. } = request;
    let work = context.work.clone();
    let inference = Inference { service: service.clone(), work, model, outputs, admitted: admitted.clone() };
    let response = context.work.answer(limits.timeout, inference.run(request)).await?;
    Ok(hold_until_sent(admitted, response))
}

/// A request that was admitted.
struct Inference {
    service: Service,
    work: WorkContext,
    model: ServedModel,
    outputs: ResolvedOutputs,
    admitted: Admitted,
}

impl Inference {
    async fn run(self, request: InferenceRequest) -> Result<Response, ServingError> {
        let Self { service, work, model, outputs, admitted } = self;
        admitted.reserve(outputs.memory_bytes(PIECES_BYTES))?;
        let InferenceRequest { id, images, .. } = request;
        let inputs = outputs.inputs(&images);
        drop(images);
        // Concurrently, so that images of equal shape are batched.
        let run = async |input: ModelInput| -> Result<_, ServingError> {
            let reply = model.run(input, outputs.layers.clone(), work.deadline).await?;
            work.timings.add_run(reply.queued, reply.inference);
            Ok(reply.layers)
        };
        let layers = try_join_all(inputs.into_iter().map(run)).await?;
        let (timings, cpu) = (work.timings.clone(), service.cpu().clone());
        let reply = InferenceReplyWriter { model: model.clone(), id, outputs };
        service.cpu().run(move || timings.measure(Stage::Encode, || reply.write(layers, cpu))).await?
    }
}

/// Encoding of a body.
#[derive(Clone, Copy)]
struct BodyForm {
    encoding: ContentEncoding,
    header_length: Option<usize>,
}

impl BodyForm {
    fn from_request(request: &Request) -> Result<Self, RequestError> {
        let encoding = ContentEncoding::parse(header_text(request, &axum::http::header::CONTENT_ENCODING)?)?;
        let header_length = header_text(request, &HEADER_LENGTH)?.map(|text| {
            let wrong =
                || RequestError::MalformedInference(format!("Inference-Header-Content-Length: `{text}` is no length"));
            text.parse().map_err(|_| wrong())
        });
        Ok(Self { encoding, header_length: header_length.transpose()? })
    }
}

impl From<MalformedInference> for RequestError {
    fn from(error: MalformedInference) -> Self {
        Self::MalformedInference(error.to_string())
    }
}
