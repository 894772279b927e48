//! `POST /correspondence`: finds the points of one image, or its labels, in others.

mod document;
mod feature_ids;
mod parameters;
mod reply;
mod schema;
mod tensors;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use self::document::CorrespondenceJson;
use self::feature_ids::{KnownFeatures, NamedFeatures};
use self::parameters::{CorrespondenceFormat, CorrespondenceParameters, CorrespondenceQuery, Uploaded};
use self::reply::CorrespondenceReply;
use self::schema::{CorrespondenceForm, CorrespondenceObject};
use super::docs::{Binary, examples};
use super::observe::RequestContext;
use super::problem::responses::WorkProblems;
use super::reply::hold_until_sent;
use super::request::{
    Expected, ImageCount, ImageField, ReadBody, ReadRequest, Reading, RequestError, Upload, struct_fields,
};
use super::state::AppState;
use crate::serving::correspondence::{self, CorrespondenceImages, CorrespondenceTask, ImageSource};
use crate::serving::{FeatureExtraction, Stage};

// Missing images are detected with the parameters, as ids can replace images.
pub(super) const EXPECTED: Expected<3> = Expected {
    images: [
        ImageField { part: "source", json: "source", count: ImageCount::AtMostOne },
        ImageField { part: "target", json: "target", count: ImageCount::Any },
        ImageField { part: "mask", json: "mask", count: ImageCount::AtMostOne },
    ],
    raw: false,
    parameters: || [&feature_ids::NAMES, struct_fields::<CorrespondenceQuery>()].concat(),
};

/// The body of a request: source, targets, mask and parameters.
pub(super) struct CorrespondenceBody(Upload<3>);

impl ReadBody for CorrespondenceBody {
    async fn read(app: &AppState, reading: Reading) -> Result<Self, RequestError> {
        Upload::read(app.service().limits(), app.service().cpu(), reading.request, EXPECTED).await.map(Self)
    }
}

/// Finds points of a source image in target images, or carries its labels over to them.
///
/// The points are a list, a grid, or the centres of all cells of the source. Coordinates are pixels of the upright
/// images; (0, 0) is the centre of the top-left pixel. Several targets are answered separately, in their order.
///
/// With `verify`, matches that agree on one geometry are flagged as inliers, and its matrix is in the reply, row by
/// row: the homography that maps `(x, y, 1)` in pixels of the source to the target, or the fundamental matrix F of two
/// views with x'ᵀ·F·x = 0. The result is deterministic. If the matches determine no matrix, because they are too few, do
/// not agree, or lie in too few places, on one line or, for a fundamental matrix, on one plane, or agree by chance, it is
/// null, no match is an inlier, and `reason` tells why. In a safetensors file the tensor `0.matrix` is absent then, and the metadata have
/// the reason, `0.reason`.
///
/// With a `mask`, each cell of the target takes the labels of the source's most similar cells, weighted by their
/// similarity. The weights of the labels are interpolated between cells, and a pixel takes the label of the largest.
#[utoipa::path(
    post,
    path = "/correspondence",
    tag = "features",
    // The query may hold all parameters. One of them must be described: openapi-python-client 0.29 generates code that
    // does not compile for a route with several types of bodies and no query.
    params(("format" = Option<String>, Query, description = "Format of the reply, here or in the body. All other parameters of the body can be given in the query, too.")),
    request_body(content(
        (CorrespondenceForm = "multipart/form-data"),
        (CorrespondenceObject = "application/json", example = examples::correspondence_object),
    )),
    responses(
        (
            status = 200,
            description = "The matches, similarities or labels",
            content(
                (CorrespondenceJson<'static> = "application/json"),
                (Binary = "application/x-npy"),
                (Binary = "application/x-safetensors"),
                (Binary = "image/png"),
            ),
            headers(
                ("Densecl-Model" = String, description = "Name and version, `name/version`"),
                ("Densecl-Layer" = String, description = "The layer, or several joined by `+`"),
                ("Server-Timing" = String, description = "Milliseconds per stage"),
                ("X-Request-Id" = String, description = "The request's own id, or a new one"),
            )
        ),
        WorkProblems,
    )
)]
pub(super) async fn post_correspondence(
    State(app): State<AppState>,
    request: ReadRequest<CorrespondenceBody>,
) -> Result<Response, RequestError> {
    let ReadRequest { body: CorrespondenceBody(upload), headers, context, .. } = request;
    answer(&app, context, upload, headers).await
}

/// Answers a request whose body has been read.
pub(super) async fn answer(
    app: &AppState,
    context: RequestContext,
    upload: Upload<3>,
    headers: HeaderMap,
) -> Result<Response, RequestError> {
    let (service, limits) = (app.service(), app.service().limits());
    let Upload { images: [source, targets, mask], mut parameters } = upload;
    let named = NamedFeatures::take_from(&mut parameters)?;
    named.check_count(source.len() + targets.len(), limits.max_images)?;
    let known = named.look_up(service).await?;
    let uploaded = Uploaded { targets: targets.len() + known.targets.len(), has_mask: !mask.is_empty() };
    let read = {
        let (service, known) = (service.clone(), known.clone());
        move |parameters: &_| CorrespondenceParameters::read(&service, parameters, &headers, (uploaded, &known))
    };
    let parameters = parameters.read_with(service.cpu(), read).await?;
    let images = correspondence_images(source, targets, mask, known)?;
    let CorrespondenceParameters { selection, task, format } = parameters;
    context.notes.set_subject(&selection.model, &selection.layers);
    let reply = CorrespondenceReply { selection: selection.clone(), format, cpu: service.cpu().clone() };
    let extraction = FeatureExtraction::new(service.clone(), context.work.clone(), selection);
    let admitted = extraction.admitted.clone();
    let keep_pixels = format == CorrespondenceFormat::Png && !matches!(task, CorrespondenceTask::Labels);
    let answer = async {
        let check = |cost: &_| reply::check(cost, format, limits.max_response_bytes);
        let outcome = correspondence::find(&extraction, images, task, check, keep_pixels).await?;
        extraction.on_cpu(Stage::Encode, move || reply.write(outcome)).await
    };
    let response = context.work.answer(limits.timeout, answer).await?;
    Ok(hold_until_sent(admitted, response))
}

/// Collects the images of a request, each uploaded or named by an id.
fn correspondence_images(
    source: Vec<Bytes>,
    targets: Vec<Bytes>,
    mask: Vec<Bytes>,
    known: KnownFeatures,
) -> Result<CorrespondenceImages, RequestError> {
    let source = match (source.into_iter().next(), known.source) {
        (Some(_), Some(_)) => {
            let reason = "`source` and `source_id` both say what the source is";
            return Err(RequestError::conflict(reason));
        }
        (Some(file), None) => ImageSource::Upload(file),
        (None, Some(features)) => ImageSource::Cached(features),
        (None, None) => return Err(RequestError::MissingPart { name: "source" }),
    };
    let known_targets = known.targets.into_iter().map(ImageSource::Cached);
    let targets = targets.into_iter().map(ImageSource::Upload).chain(known_targets);
    let images: Vec<_> = std::iter::once(source).chain(targets).collect();
    if images.len() == 1 {
        return Err(RequestError::MissingPart { name: "target" });
    }
    Ok(CorrespondenceImages { images, mask: mask.into_iter().next() })
}
