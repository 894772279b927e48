//! `POST /correspondence`: the points of one image, or its labels, found in others.

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
use self::parameters::{CorrespondenceFormat, CorrespondenceParameters, Uploaded};
use self::reply::CorrespondenceReply;
use self::schema::{CorrespondenceForm, CorrespondenceObject};
use super::docs::Binary;
use super::observe::RequestContext;
use super::problem::responses::WorkProblems;
use super::reply::hold_until_sent;
use super::request::{Count, Expected, ImageField, ReadBody, ReadRequest, Reading, RequestError, Upload};
use super::state::AppState;
use crate::serving::correspondence::{self, Input, Inputs, Wanted};
use crate::serving::{FeatureExtraction, Stage};

// Which images must be there is decided with the parameters: ids may stand for them.
pub(super) const EXPECTED: Expected<3> = Expected {
    images: [
        ImageField { part: "source", json: "source", count: Count::OneOrNone },
        ImageField { part: "target", json: "target", count: Count::SeveralOrNone },
        ImageField { part: "mask", json: "mask", count: Count::OneOrNone },
    ],
    raw: false,
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
/// The points are given, or a grid, or every cell of the source. Coordinates are pixels of the upright images, (0, 0)
/// being the centre of the top-left pixel. Several targets are answered one by one, in their order.
///
/// With `verify`, matches that agree on one geometry are flagged as inliers, and its matrix is in the reply, row by row:
/// of a homography the one that takes `(x, y, 1)` in pixels of the source to the target, of two views the fundamental
/// matrix F with x'ᵀ·F·x = 0. The same request gives the same answer. If the matches determine none the matrix is null,
/// no match is an inlier, and `reason` says why.
///
/// With a `mask`, each cell of the target takes the labels of the source's most similar cells, weighted by their
/// similarity; between cells the shares of the labels are interpolated, and a pixel has the label with the largest.
#[utoipa::path(
    post,
    path = "/correspondence",
    tag = "features",
    // All parameters can stand there. One must be described: a generator of clients makes code that does not compile
    // (openapi-python-client 0.29) where there are several forms of a body and no query.
    params(("format" = Option<String>, Query, description = "Format of the reply; here, or in the body. All other parameters of the body can stand in the query as well.")),
    request_body(content(
        (CorrespondenceForm = "multipart/form-data"),
        (CorrespondenceObject = "application/json"),
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
                ("X-Request-Id" = String, description = "Taken over from the request, or made"),
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

/// Answers a request that was read.
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
    let inputs = inputs(source, targets, mask, known)?;
    let CorrespondenceParameters { selection, wanted, format } = parameters;
    context.notes.set_subject(&selection.model, &selection.layers);
    let reply = CorrespondenceReply { selection: selection.clone(), format, cpu: service.cpu().clone() };
    let extraction = FeatureExtraction::new(service.clone(), context.work.clone(), selection);
    let admitted = extraction.admitted.clone();
    let keep_pixels = format == CorrespondenceFormat::Png && !matches!(wanted, Wanted::Labels);
    let answer = async {
        let check = |cost: &_| reply::check(cost, format, limits.max_response_bytes);
        let outcome = correspondence::find(&extraction, inputs, wanted, check, keep_pixels).await?;
        extraction.on_cpu(Stage::Encode, move || reply.write(outcome)).await
    };
    let response = context.work.answer(limits.timeout, answer).await?;
    Ok(hold_until_sent(admitted, response))
}

/// The images of a request, each uploaded or named by an id.
fn inputs(
    source: Vec<Bytes>,
    targets: Vec<Bytes>,
    mask: Vec<Bytes>,
    known: KnownFeatures,
) -> Result<Inputs, RequestError> {
    let source = match (source.into_iter().next(), known.source) {
        (Some(_), Some(_)) => {
            let reason = "`source` and `source_id` both say what the source is";
            return Err(RequestError::conflict(reason));
        }
        (Some(file), None) => Input::Upload(file),
        (None, Some(features)) => Input::Known(features),
        (None, None) => return Err(RequestError::MissingPart { name: "source" }),
    };
    let targets = targets.into_iter().map(Input::Upload).chain(known.targets.into_iter().map(Input::Known));
    let images: Vec<_> = std::iter::once(source).chain(targets).collect();
    if images.len() == 1 {
        return Err(RequestError::MissingPart { name: "target" });
    }
    Ok(Inputs { images, mask: mask.into_iter().next() })
}
