//! `POST /features`: an image in, a feature map out.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::future::try_join_all;

use super::admission::Admitted;
use super::docs::Binary;
use super::extraction::Picture;
use super::features_document::FeaturesJson;
use super::features_parameters::{FeaturesParameters, FeaturesQuery, Wanted};
use super::features_reply::{AskedImage, FeaturesReply};
use super::observe::{RequestContext, Stage};
use super::pipeline::Pipeline;
use super::problem_responses::WorkProblems;
use super::state::AppState;
use super::upload::{Count, Expected, ImageField, Upload};
use crate::error::ApiError;

const EXPECTED: Expected<1> =
    Expected { images: [ImageField { part: "image", json: "images", count: Count::Several }], raw: true };

/// The form of a request.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the form, which is read part by part")]
pub(super) struct FeaturesForm {
    /// An image; several parts of this name are several images. All parameters of the query can be parts, too.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
}

/// The JSON object of a request.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the object, which is read field by field")]
pub(super) struct FeaturesObject {
    /// Images in standard base64. All parameters of the query can be fields, too: as JSON has them (`"side": 512`, `"points": [[12.5, 40]]`) or as text.
    #[schema(min_items = 1, example = json!(["iVBORw0KGgo…"]))]
    images: Vec<String>,
}

/// Dense features of images: one descriptor per cell, per pixel, or at points.
///
/// An image is the raw body, a part `image` of a form, or base64 in the list `images` of a JSON object; the last two
/// may hold several, which are answered as JSON or safetensors. An image is told by its content: JPEG, PNG, WebP, GIF,
/// BMP or TIFF; of an animation the first frame. Its EXIF orientation is applied.
#[utoipa::path(
    post,
    path = "/features",
    tag = "features",
    params(FeaturesQuery),
    request_body(content(
        (Binary = "application/octet-stream"),
        (Binary = "image/jpeg"),
        (Binary = "image/png"),
        (FeaturesForm = "multipart/form-data"),
        (FeaturesObject = "application/json"),
    )),
    responses(
        (
            status = 200,
            description = "The features",
            content(
                (FeaturesJson<'static> = "application/json"),
                (Binary = "application/x-npy"),
                (Binary = "application/x-safetensors"),
                (Binary = "application/octet-stream"),
                (Binary = "image/png"),
            ),
            headers(
                ("Densecl-Model" = String, description = "Name and version, `name/version`"),
                ("Densecl-Layer" = String, description = "The layer, or several joined by `+`"),
                ("Densecl-Shape" = String, description = "Of one image: sizes of the axes, such as `512,12,16`"),
                ("Densecl-Image-Size" = String, description = "Of one image: pixels of the upright image, `WxH`"),
                ("Densecl-Feature-Id" = String, description = "Of one image: names the features by image, model, layer and side"),
                ("Server-Timing" = String, description = "Milliseconds per stage"),
                ("X-Request-Id" = String, description = "Taken over from the request, or made"),
            )
        ),
        WorkProblems,
    )
)]
pub(super) async fn post_features(
    State(app): State<AppState>,
    Extension(context): Extension<RequestContext>,
    request: Request,
) -> Result<Response, ApiError> {
    app.registry()?;
    let limits = app.config().limits;
    let headers = request.headers().clone();
    let body = app.arriving_body();
    let upload = Upload::read(&app, body.of(request), EXPECTED);
    let upload = context.receive(limits.body_timeout, upload).await.map_err(|error| body.explain(error))?;
    let [images] = upload.images;
    let parameters = FeaturesParameters::read(&app, &upload.parameters, &headers, images.len())?;
    context.notes.concerns(&parameters.extraction.model, &parameters.extraction.layers);
    let admitted = app.admit();
    let answer = answer(app.clone(), context.clone(), parameters, images, admitted.clone());
    Ok(admitted.until_sent(context.answer(limits.timeout, answer).await?))
}

async fn answer(
    app: AppState,
    context: RequestContext,
    parameters: FeaturesParameters,
    images: Vec<Bytes>,
    admitted: Admitted,
) -> Result<Response, ApiError> {
    let FeaturesParameters { extraction, wanted, reply: options } = parameters;
    let (max_bytes, cpu) = (app.config().limits.max_response_bytes, app.cpu().clone());
    let reply = FeaturesReply { extraction: extraction.clone(), options, max_bytes, cpu };
    let pipeline = Pipeline { app, context, extraction, admitted };
    let form = wanted.form();
    let opening = images.into_iter().enumerate().map(async |(index, image)| {
        open(&pipeline, &wanted, image).await.map_err(|error| reply.of_image(index, error))
    });
    let (asked, mut pictures): (Vec<_>, Vec<_>) = try_join_all(opening).await?.into_iter().unzip();
    pipeline.admitted.reserve(reply.check(&asked)?)?;
    pipeline.take_places(&mut pictures, 0)?;
    // All at once: images of equal shape share a run.
    let computing = pictures.into_iter().enumerate().map(async |(index, picture)| {
        picture.features(&pipeline, form).await.map_err(|error| reply.of_image(index, error))
    });
    let features = try_join_all(computing).await?;
    let images = asked.into_iter().zip(features).collect();
    pipeline.on_cpu(Stage::Encode, move || reply.write(images)).await
}

async fn open(pipeline: &Pipeline, wanted: &Wanted, image: Bytes) -> Result<(AskedImage, Picture), ApiError> {
    let picture = Picture::open(pipeline, image, wanted.form()).await?;
    Ok((AskedImage { id: picture.id, rendering: wanted.of(picture.size)? }, picture))
}
