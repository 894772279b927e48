//! `POST /features`: an image in, a feature map out.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use super::admission::Admitted;
use super::features_parameters::{FeaturesParameters, FeaturesQuery};
use super::features_reply::{FeaturesDocument, FeaturesReply};
use super::observe::{RequestContext, Stage};
use super::pipeline::{Decoded, Pipeline};
use super::state::AppState;
use super::upload::{Count, Expected, ImageField, Upload};
use crate::error::{ApiError, Problem};
use crate::features::ImagePoints;

const EXPECTED: Expected<1> =
    Expected { images: [ImageField { part: "image", json: "images", count: Count::Several }], raw: true };

/// The form of a request that is not a raw body.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it describes the form, which is read part by part")]
pub(super) struct FeaturesForm {
    /// The image. All parameters of the query can be parts, too.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
}

/// Dense features of an image: one descriptor per cell, or descriptors at points.
///
/// The image is the raw body, or the part `image` of a form. It is told by its content: JPEG, PNG,
/// WebP, GIF, BMP or TIFF; of an animation the first frame. Its EXIF orientation is applied.
#[utoipa::path(
    post,
    path = "/features",
    tag = "features",
    params(FeaturesQuery),
    request_body(content(
        (Vec<u8> = "application/octet-stream"),
        (Vec<u8> = "image/jpeg"),
        (Vec<u8> = "image/png"),
        (FeaturesForm = "multipart/form-data"),
    )),
    responses(
        (
            status = 200,
            description = "The features",
            content(
                (FeaturesDocument<'static> = "application/json"),
                (Vec<u8> = "application/x-npy"),
                (Vec<u8> = "application/octet-stream"),
                (Vec<u8> = "image/png"),
            ),
            headers(
                ("Densecl-Model" = String, description = "Name and version, `name/version`"),
                ("Densecl-Layer" = String, description = "The layer, or several joined by `+`"),
                ("Densecl-Shape" = String, description = "Sizes of the axes, such as `512,12,16`"),
                ("Densecl-Image-Size" = String, description = "Pixels of the upright image, `WxH`"),
                ("Densecl-Feature-Id" = String, description = "Names the features by image, model, layer and side"),
                ("Server-Timing" = String, description = "Milliseconds per stage"),
                ("X-Request-Id" = String, description = "Taken over from the request, or made"),
            )
        ),
        (status = "4XX", description = "The request cannot be answered", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "The server cannot answer it now", body = Problem, content_type = "application/problem+json"),
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
    let upload = context.receive(limits.timeout, Upload::read(&app, request, EXPECTED)).await?;
    let parameters = FeaturesParameters::read(&app, &upload.parameters, &headers)?;
    let admitted = app.admit(1, context.deadline)?;
    let answer = answer(app.clone(), context.clone(), parameters, upload, admitted.clone());
    Ok(admitted.until_sent(context.answer(limits.timeout, answer).await?))
}

async fn answer(
    app: AppState,
    context: RequestContext,
    parameters: FeaturesParameters,
    upload: Upload<1>,
    admitted: Admitted,
) -> Result<Response, ApiError> {
    let FeaturesParameters { extraction, points, reply: options } = parameters;
    let max_bytes = app.config().limits.max_response_bytes;
    let pipeline = Pipeline { app, context, extraction, admitted };
    let [images] = upload.images;
    let bytes = images.into_iter().next().ok_or(ApiError::EmptyBody)?;
    let Decoded { image, size, id, input } = pipeline.decode(bytes).await?;
    // Only its size matters from here on; its pixels need not wait in the queue.
    drop(image);
    let points = points.map(|points| ImagePoints::new(points, size)).transpose()?;
    let layers = pipeline.infer(input).await?;
    let extraction = pipeline.extraction.clone();
    let reply = FeaturesReply { extraction, size, id, points, options, max_bytes };
    pipeline.on_cpu(Stage::Encode, move || reply.write(layers)).await
}
