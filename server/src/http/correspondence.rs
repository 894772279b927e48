//! `POST /correspondence`: the points of one image, or its labels, found in others.

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
use super::observe::{RequestContext, Stage};
use super::pipeline::{Decoded, Pipeline};
use super::problem_responses::WorkProblems;
use super::state::AppState;
use super::upload::{Count, Expected, ImageField, Upload};
use crate::error::ApiError;
use crate::image::{DecodeLimits, LabelPicture};
use crate::matching::Cancellation;
use crate::registry::ModelInput;

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
    let [source, targets, mask] = upload.images;
    let uploaded = Uploaded { targets: targets.len(), has_mask: !mask.is_empty() };
    let parameters = CorrespondenceParameters::read(&app, &upload.parameters, &headers, uploaded)?;
    let files = Files::new(source, targets, mask)?;
    // Only now: a body that drips in must not keep others out.
    context.notes.concerns(&parameters.extraction);
    let admitted = app.admit(1 + files.targets.len(), context.deadline)?;
    let answer = answer(app.clone(), context.clone(), parameters, files, admitted.clone());
    Ok(admitted.until_sent(context.answer(limits.timeout, answer).await?))
}

async fn answer(
    app: AppState,
    context: RequestContext,
    parameters: CorrespondenceParameters,
    files: Files,
    admitted: Admitted,
) -> Result<Response, ApiError> {
    let CorrespondenceParameters { extraction, wanted, format } = parameters;
    let (max_bytes, cpu) = (app.config().limits.max_response_bytes, app.cpu().clone());
    let pipeline = Pipeline { app, context, extraction, admitted };
    let mut pictures = files.decode(&pipeline, format).await?;
    let source = pictures.source.side.size;
    let targets: Vec<_> = pictures.targets.iter().map(|target| target.side.size).collect();
    let work = match (wanted, pictures.mask.take()) {
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

    // All at once: images of equal shape share a run.
    let (sides, inputs) = pictures.into_sides_and_inputs();
    let layers = try_join_all(inputs.into_iter().map(|input| pipeline.infer(input))).await?;
    let cancellation = CancelledOnDrop::default();
    let job = Job { work, images: sides.into_iter().zip(layers).collect(), cancellation: cancellation.0.clone() };
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

/// The files of a request.
struct Files {
    source: Bytes,
    targets: Vec<Bytes>,
    mask: Option<Bytes>,
}

/// What they hold.
struct Pictures {
    source: Picture,
    targets: Vec<Picture>,
    mask: Option<LabelPicture>,
}

struct Picture {
    side: Side,
    input: ModelInput,
}

impl Files {
    fn new(source: Vec<Bytes>, targets: Vec<Bytes>, mask: Vec<Bytes>) -> Result<Self, ApiError> {
        let source = source.into_iter().next().ok_or(ApiError::MissingPart { name: "source" })?;
        if targets.is_empty() {
            return Err(ApiError::MissingPart { name: "target" });
        }
        Ok(Self { source, targets, mask: mask.into_iter().next() })
    }

    async fn decode(self, pipeline: &Pipeline, format: CorrespondenceFormat) -> Result<Pictures, ApiError> {
        let name = |index: usize| {
            if self.targets.len() == 1 { "target".to_owned() } else { format!("target[{index}]") }
        };
        let source = decode(pipeline, self.source, format, "source".to_owned());
        let targets = self.targets.iter().enumerate();
        let targets = try_join_all(targets.map(|(index, file)| decode(pipeline, file.clone(), format, name(index))));
        let (source, targets, mask) = tokio::try_join!(source, targets, decode_mask(pipeline, self.mask))?;
        if let Some(mask) = &mask {
            let (found, expected) = (mask.size(), source.side.size);
            if found != expected {
                return Err(ApiError::MaskSize { found, expected });
            }
        }
        Ok(Pictures { source, targets, mask })
    }
}

async fn decode(
    pipeline: &Pipeline,
    file: Bytes,
    format: CorrespondenceFormat,
    name: String,
) -> Result<Picture, ApiError> {
    let Decoded { image, size, id, input } = pipeline.decode(file).await.map_err(|error| error.of_image(name))?;
    // Only a picture of the matches needs the pixels; else they need not wait in the queue.
    let image = (format == CorrespondenceFormat::Png).then_some(image);
    Ok(Picture { side: Side { image, size, id }, input })
}

async fn decode_mask(pipeline: &Pipeline, file: Option<Bytes>) -> Result<Option<LabelPicture>, ApiError> {
    let Some(file) = file else { return Ok(None) };
    let limits = DecodeLimits { max_pixels: pipeline.app.config().limits.max_pixels };
    let size = LabelPicture::probe(&file, &limits)?;
    // Once as the file packs them, once unpacked.
    pipeline.admitted.reserve(2 * size.pixels())?;
    let mask = pipeline.on_cpu(Stage::Decode, move || Ok(LabelPicture::decode(&file, &limits)?)).await?;
    Ok(Some(mask))
}

impl Pictures {
    /// The source first, then the targets.
    fn into_sides_and_inputs(self) -> (Vec<Side>, Vec<ModelInput>) {
        std::iter::once(self.source).chain(self.targets).map(|picture| (picture.side, picture.input)).unzip()
    }
}
