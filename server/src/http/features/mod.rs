//! `POST /features`: an image in, a feature map or a vector out.

mod document;
mod parameters;
mod reply;
mod schema;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use self::document::FeaturesJson;
use self::parameters::{FeaturesParameters, FeaturesQuery};
use self::reply::FeaturesReply;
pub(super) use self::reply::{HEADERS, LAYER, MODEL};
use self::schema::{FeaturesForm, FeaturesObject};
use super::docs::{Binary, examples};
use super::observe::RequestContext;
use super::problem::responses::WorkProblems;
use super::reply::hold_until_sent;
use super::request::{
    Expected, ImageCount, ImageField, Parameters, ReadBody, ReadRequest, Reading, RequestError, Upload, struct_fields,
};
use super::state::AppState;
use crate::serving::{FeatureExtraction, Stage, features};

pub(super) const EXPECTED: Expected<1> = Expected {
    images: [ImageField { part: "image", json: "images", count: ImageCount::AtLeastOne }],
    raw: true,
    parameters: || struct_fields::<FeaturesQuery>().to_vec(),
};

/// The body of a request: images and parameters.
pub(super) struct FeaturesBody(Upload<1>);

impl ReadBody for FeaturesBody {
    async fn read(app: &AppState, reading: Reading) -> Result<Self, RequestError> {
        Upload::read(app.service().limits(), app.service().cpu(), reading.request, EXPECTED).await.map(Self)
    }
}

/// Features of images: one descriptor per cell, per pixel, or at points, or one vector for each image.
///
/// An image is a part `image` of a form, base64 in the list `images` of a JSON object, or the raw body. Forms and
/// objects may hold several, which are answered as JSON or safetensors; vectors of several images, `[N, C]`, in any
/// format but `png`. The format is detected from the content: JPEG,
/// PNG, WebP, GIF, BMP or TIFF. Only the first frame of an animation is used. The EXIF orientation is applied.
#[utoipa::path(
    post,
    path = "/features",
    tag = "features",
    params(FeaturesQuery),
    request_body(content(
        (FeaturesForm = "multipart/form-data"),
        (FeaturesObject = "application/json", example = examples::features_object),
        (Binary = "application/octet-stream"),
        (Binary = "image/jpeg"),
        (Binary = "image/png"),
    )),
    responses(
        (
            status = 200,
            description = "The features",
            content(
                (FeaturesJson = "application/json"),
                (Binary = "application/x-npy"),
                (Binary = "application/x-safetensors"),
                (Binary = "application/octet-stream"),
                (Binary = "image/png"),
            ),
            headers(
                ("Densecl-Model" = String, description = "Name and version, `name/version`"),
                ("Densecl-Layer" = String, description = "The layer, or several joined by `+`"),
                ("Densecl-Shape" = String, description = "Sizes of the axes, such as `512,12,16`; for one image, and for vectors"),
                ("Densecl-Image-Size" = String, description = "Pixels of the upright image, `WxH`; for one image"),
                ("Densecl-Feature-Id" = String, description = "Identifies the features by image, model, layer and side; for one image"),
                ("Server-Timing" = String, description = "Milliseconds per stage"),
                ("X-Request-Id" = String, description = "The request's own id, or a new one"),
            )
        ),
        WorkProblems,
    )
)]
pub(super) async fn post_features(
    State(app): State<AppState>,
    request: ReadRequest<FeaturesBody>,
) -> Result<Response, RequestError> {
    let ReadRequest { body: FeaturesBody(Upload { images: [images], parameters }), headers, context, .. } = request;
    answer(&app, context, images, parameters, headers).await
}

/// Answers a request whose body has been read.
pub(super) async fn answer(
    app: &AppState,
    context: RequestContext,
    images: Vec<Bytes>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, RequestError> {
    let service = app.service();
    let read = {
        let (service, count) = (service.clone(), images.len());
        move |parameters: &_| FeaturesParameters::read(&service, parameters, &headers, count)
    };
    let FeaturesParameters { selection, requested, reply } = parameters.read_with(service.cpu(), read).await?;
    context.notes.set_subject(&selection.model, &selection.layers);
    let reply = FeaturesReply::new(service, selection.clone(), reply);
    let extraction = FeatureExtraction::new(service.clone(), context.work.clone(), selection);
    let admitted = extraction.admitted.clone();
    let answer = async {
        if requested.is_vector() {
            let images = features::pool(&extraction, images, &requested, |renderings| reply.check(renderings)).await?;
            return extraction.on_cpu(Stage::Encode, move || reply.write_vectors(images)).await;
        }
        let images = features::extract(&extraction, images, &requested, |renderings| reply.check(renderings)).await?;
        extraction.on_cpu(Stage::Encode, move || reply.write(images)).await
    };
    let response = context.work.answer(service.limits().timeout, answer).await?;
    Ok(hold_until_sent(admitted, response))
}
