//! `POST /correspondence`: the points of one image, or its labels, found in others.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::future::try_join_all;

use super::admission::Admitted;
use super::correspondence_document::CorrespondenceJson;
use super::correspondence_job::{Job, Side, Work};
use super::correspondence_parameters::{
    CorrespondenceForm, CorrespondenceFormat, CorrespondenceObject, CorrespondenceParameters, Uploaded, Wanted,
};
use super::correspondence_reply::CorrespondenceReply;
use super::docs::Binary;
use super::extraction::Picture;
use super::feature_ids::{KnownFeatures, NamedFeatures};
use super::observe::{RequestContext, Stage};
use super::pipeline::Pipeline;
use super::problem_responses::WorkProblems;
use super::state::AppState;
use super::upload::{Count, Expected, ImageField, Upload};
use crate::cache::{CachedFeatures, MapsKind};
use crate::error::ApiError;
use densecl_vision::image::LabelPicture;
use densecl_vision::matching::Cancellation;

// Which images must be there is decided with the parameters: ids may stand for them.
const EXPECTED: Expected<3> = Expected {
    images: [
        ImageField { part: "source", json: "source", count: Count::OneOrNone },
        ImageField { part: "target", json: "target", count: Count::SeveralOrNone },
        ImageField { part: "mask", json: "mask", count: Count::OneOrNone },
    ],
    raw: false,
};

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
    Extension(context): Extension<RequestContext>,
    request: Request,
) -> Result<Response, ApiError> {
    app.registry()?;
    let limits = app.config().limits;
    let headers = request.headers().clone();
    let body = app.arriving_body();
    let upload = Upload::read(&app, body.of(request), EXPECTED);
    let upload = context.receive(limits.body_timeout, upload).await.map_err(|error| body.explain(error))?;
    let Upload { images: [source, targets, mask], mut parameters } = upload;
    let named = NamedFeatures::take_from(&mut parameters)?;
    named.check_count(source.len() + targets.len(), limits.max_images)?;
    let known = named.look_up(&app).await?;
    let uploaded = Uploaded { targets: targets.len() + known.targets.len(), has_mask: !mask.is_empty() };
    let parameters = CorrespondenceParameters::read(&app, &parameters, &headers, (uploaded, &known))?;
    let inputs = Inputs::new(source, targets, mask, known)?;
    context.notes.concerns(&parameters.extraction.model, &parameters.extraction.layers);
    let admitted = app.admit();
    let answer = answer(app.clone(), context.clone(), parameters, inputs, admitted.clone());
    Ok(admitted.until_sent(context.answer(limits.timeout, answer).await?))
}

async fn answer(
    app: AppState,
    context: RequestContext,
    parameters: CorrespondenceParameters,
    inputs: Inputs,
    admitted: Admitted,
) -> Result<Response, ApiError> {
    let CorrespondenceParameters { extraction, wanted, format } = parameters;
    let (max_bytes, cpu) = (app.config().limits.max_response_bytes, app.cpu().clone());
    let pipeline = Pipeline { app, context, extraction, admitted };
    let Opened { mut images, mask } = inputs.open(&pipeline).await?;
    let (source, targets) = images.split_first().ok_or(ApiError::MissingPart { name: "source" })?;
    let source = source.picture.size;
    let targets: Vec<_> = targets.iter().map(|target| target.picture.size).collect();
    let work = match (wanted, mask) {
        (Wanted::Matches { asked, options, verify }, _) => {
            let points = asked.map(|asked| asked.within(source)).transpose()?;
            Work::Matches { points, options, verify }
        }
        (Wanted::Heatmaps { asked }, _) => Work::Heatmaps { points: asked.within(source)? },
        (Wanted::Labels, Some(mask)) => Work::Labels { mask },
        (Wanted::Labels, None) => return Err(ApiError::MissingPart { name: "mask" }),
    };
    let cost = work.cost(&pipeline.extraction, source, &targets)?;
    cost.check(format, max_bytes)?;
    pipeline.admitted.reserve(cost.memory_bytes)?;
    // Matching takes a turn, even if nothing is to be computed before.
    pipeline.take_places(images.iter_mut().map(|image| &mut image.picture), 1)?;

    // All at once: images of equal shape share a run.
    let keep_pixels = format == CorrespondenceFormat::Png && !matches!(work, Work::Labels { .. });
    let images = try_join_all(images.into_iter().map(|image| image.features(&pipeline, keep_pixels))).await?;
    let cancellation = CancelledOnDrop::default();
    let job = Job { work, images, cancellation: cancellation.0.clone() };
    let result = pipeline.on_cpu(Stage::Match, move || job.run()).await?;
    let reply = CorrespondenceReply { extraction: pipeline.extraction.clone(), format, cpu };
    pipeline.on_cpu(Stage::Encode, move || reply.write(result)).await
}

/// Ends the work when the request is dropped: its client has gone, or its deadline has passed.
#[derive(Default)]
struct CancelledOnDrop(Cancellation);

impl Drop for CancelledOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The images of a request, the source first, then its targets.
struct Inputs {
    images: Vec<Input>,
    mask: Option<Bytes>,
}

/// An image of a request.
enum Input {
    Upload(Bytes),
    Known(Arc<CachedFeatures>),
}

/// The same, once it is known what is known of them.
struct Opened {
    images: Vec<OpenedImage>,
    mask: Option<LabelPicture>,
}

struct OpenedImage {
    /// What it is called in an error.
    name: String,
    /// Of an uploaded image.
    file: Option<Bytes>,
    picture: Picture,
}

impl Inputs {
    fn new(source: Vec<Bytes>, targets: Vec<Bytes>, mask: Vec<Bytes>, known: KnownFeatures) -> Result<Self, ApiError> {
        let source = match (source.into_iter().next(), known.source) {
            (Some(_), Some(_)) => {
                let reason = "`source` and `source_id` both say what the source is";
                return Err(ApiError::Conflict(reason.to_owned()));
            }
            (Some(file), None) => Input::Upload(file),
            (None, Some(features)) => Input::Known(features),
            (None, None) => return Err(ApiError::MissingPart { name: "source" }),
        };
        let targets = targets.into_iter().map(Input::Upload).chain(known.targets.into_iter().map(Input::Known));
        let images: Vec<_> = std::iter::once(source).chain(targets).collect();
        if images.len() == 1 {
            return Err(ApiError::MissingPart { name: "target" });
        }
        Ok(Self { images, mask: mask.into_iter().next() })
    }

    async fn open(self, pipeline: &Pipeline) -> Result<Opened, ApiError> {
        let count = self.images.len();
        let opening = self.images.into_iter().enumerate().map(async |(index, input)| {
            let name = match index {
                0 => "source".to_owned(),
                1 if count == 2 => "target".to_owned(),
                _ => format!("target[{}]", index - 1),
            };
            let (file, picture) = match input {
                Input::Known(features) => (None, Picture::known(pipeline, features)),
                Input::Upload(file) => (Some(file.clone()), Picture::open(pipeline, file, MapsKind::Unit).await),
            };
            match picture {
                Ok(picture) => Ok(OpenedImage { name, file, picture }),
                Err(error) => Err(error.of_image(name)),
            }
        });
        let (images, mask) = tokio::try_join!(try_join_all(opening), decode_mask(pipeline, self.mask))?;
        if let (Some(mask), Some(source)) = (&mask, images.first()) {
            let (found, expected) = (mask.size(), source.picture.size);
            if found != expected {
                return Err(ApiError::MaskSize { found, expected });
            }
        }
        Ok(Opened { images, mask })
    }
}

impl OpenedImage {
    /// The features, and the pixels if a picture is to be drawn of them.
    async fn features(self, pipeline: &Pipeline, keep_pixels: bool) -> Result<(Side, Arc<CachedFeatures>), ApiError> {
        let Self { name, file, picture } = self;
        let (size, id) = (picture.size, picture.id);
        let pixels = async {
            match file.filter(|_| keep_pixels) {
                Some(file) => pipeline.pixels(file).await.map(Some),
                None => Ok(None),
            }
        };
        let (features, image) = tokio::try_join!(picture.features(pipeline, MapsKind::Unit), pixels)
            .map_err(|error| error.of_image(name))?;
        Ok((Side { image, size, id }, features))
    }
}

async fn decode_mask(pipeline: &Pipeline, file: Option<Bytes>) -> Result<Option<LabelPicture>, ApiError> {
    let Some(file) = file else { return Ok(None) };
    let limits = pipeline.decode_limits();
    let size = LabelPicture::probe(&file, &limits)?;
    // Once as the file packs them, once unpacked.
    pipeline.admitted.reserve(2 * size.pixels())?;
    let mask = pipeline.on_cpu(Stage::Decode, move || Ok(LabelPicture::decode(&file, &limits)?)).await?;
    Ok(Some(mask))
}
