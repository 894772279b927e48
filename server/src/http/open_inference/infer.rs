//! `POST /v2/models/{name}/infer`: images as tensors in, outputs as tensors out.

use axum::extract::{Request, State};
use axum::response::Response;
use densecl_inference::registry::{ModelInput, ServedModel};
use futures_util::future::try_join_all;

use super::inflate::ContentEncoding;
use super::metadata::{ModelPath, NamedVersion, NewestVersion, VersionPath};
use super::reply::{HEADER_LENGTH, Reply};
use super::request::{InferenceRequest, MalformedInference, parse};
use super::schema::{InferenceObject, InferenceReply};
use super::wanted::WantedOutputs;
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
    let ReadRequest { body: InferenceBody(asked), context, .. } = &request;
    let service = app.service();
    let limits = *service.limits();
    let wanted = WantedOutputs::new(asked, &model, &limits)?;
    context.notes.set_subject(&model, &wanted.layers);
    let admitted = service.admit();
    service.take_places(&admitted, wanted.count, context.work.deadline)?;
    let ReadRequest { body: InferenceBody(asked), context, .. } = request;
    let work = context.work.clone();
    let inference = Inference { service: service.clone(), work, model, wanted, admitted: admitted.clone() };
    let response = context.work.answer(limits.timeout, inference.run(asked)).await?;
    Ok(hold_until_sent(admitted, response))
}

/// A request that was admitted.
struct Inference {
    service: Service,
    work: WorkContext,
    model: ServedModel,
    wanted: WantedOutputs,
    admitted: Admitted,
}

impl Inference {
    async fn run(self, asked: InferenceRequest) -> Result<Response, ServingError> {
        let Self { service, work, model, wanted, admitted } = self;
        admitted.reserve(wanted.memory_bytes(PIECES_BYTES))?;
        let InferenceRequest { id, images, .. } = asked;
        let inputs = wanted.inputs(&images);
        drop(images);
        // All at once: images of equal shape share a run.
        let run = async |input: ModelInput| -> Result<_, ServingError> {
            let reply = model.run(input, wanted.layers.clone(), work.deadline).await?;
            work.timings.add_run(reply.queued, reply.inference);
            Ok(reply.layers)
        };
        let layers = try_join_all(inputs.into_iter().map(run)).await?;
        let (timings, cpu) = (work.timings.clone(), service.cpu().clone());
        let reply = Reply { model: model.clone(), id, wanted };
        service.cpu().run(move || timings.measure(Stage::Encode, || reply.write(layers, cpu))).await?
    }
}

/// How a body is to be read.
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
