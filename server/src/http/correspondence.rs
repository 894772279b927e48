//! `POST /correspondence`: two images in, the points of one found in the other out.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;

use super::admission::Admitted;
use super::correspondence_parameters::{CorrespondenceForm, CorrespondenceParameters};
use super::correspondence_reply::{CorrespondenceDocument, CorrespondenceReply, Side};
use super::observe::{RequestContext, Stage};
use super::pipeline::{Decoded, Pipeline, stack};
use super::problem_responses::WorkProblems;
use super::state::AppState;
use super::upload::{Count, Expected, ImageField, Upload};
use crate::batch::LayerOutput;
use crate::error::ApiError;
use crate::features::{ImagePoints, LayerScaling, NormalizedMap};
use crate::matching::{MatchOptions, MatchSide, PointMatch, Queries, correspond};

const EXPECTED: Expected<2> = Expected {
    images: [
        ImageField { part: "source", json: "source", count: Count::One },
        ImageField { part: "target", json: "target", count: Count::One },
    ],
    raw: false,
};

/// Multiply-adds that one request may cost in matching. A match of every cell with every cell
/// grows with the fourth power of `side`; this keeps it within seconds on a small machine.
const MAX_MULTIPLICATIONS: u64 = 1 << 38;

/// Finds points of a source image in a target image.
///
/// The points are given, or a grid, or every cell of the source. Coordinates are pixels of the
/// upright images, (0, 0) being the centre of the top-left pixel.
#[utoipa::path(
    post,
    path = "/correspondence",
    tag = "features",
    request_body(content = CorrespondenceForm, content_type = "multipart/form-data"),
    responses(
        (
            status = 200,
            description = "The matches",
            content(
                (CorrespondenceDocument<'static> = "application/json"),
                (Vec<u8> = "application/x-npy"),
                (Vec<u8> = "image/png"),
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
    let upload = context.receive(limits.body_timeout, Upload::read(&app, request, EXPECTED)).await?;
    let parameters = CorrespondenceParameters::read(&app, &upload.parameters, &headers)?;
    let admitted = app.admit(2, context.deadline)?;
    let answer = answer(app.clone(), context.clone(), parameters, upload, admitted.clone());
    Ok(admitted.until_sent(context.answer(limits.timeout, answer).await?))
}

async fn answer(
    app: AppState,
    context: RequestContext,
    parameters: CorrespondenceParameters,
    upload: Upload<2>,
    admitted: Admitted,
) -> Result<Response, ApiError> {
    let CorrespondenceParameters { extraction, asked, options, format } = parameters;
    let pipeline = Pipeline { app, context, extraction, admitted };
    let [source, target] = upload.images.map(|images| images.into_iter().next().ok_or(ApiError::EmptyBody));
    let (source, target) = (source?, target?);
    let (source, target) = tokio::try_join!(pipeline.decode(source), pipeline.decode(target))?;
    let points = asked.within(source.size)?;
    let (source, source_layers) = without_input(source);
    let (target, target_layers) = without_input(target);
    let (source_layers, target_layers) =
        tokio::try_join!(pipeline.infer(source_layers), pipeline.infer(target_layers))?;
    let job = MatchJob { source_layers, target_layers, points, options };
    let (source, target, matched) = pipeline
        .on_cpu(Stage::Match, move || {
            let matched = job.run(&source, &target)?;
            Ok((source, target, matched))
        })
        .await?;
    let extraction = pipeline.extraction.clone();
    let reply = CorrespondenceReply { extraction, source, target, matched, format };
    pipeline.on_cpu(Stage::Encode, move || reply.write()).await
}

fn without_input(decoded: Decoded) -> (Side, crate::registry::ModelInput) {
    let Decoded { image, size, id, input } = decoded;
    (Side { image, size, id }, input)
}

/// The layers of both images, and what is to be found.
struct MatchJob {
    source_layers: Vec<LayerOutput>,
    target_layers: Vec<LayerOutput>,
    points: Option<ImagePoints>,
    options: MatchOptions,
}

/// The matches, and what a picture of them needs.
pub(super) struct Matched {
    pub(super) source: NormalizedMap,
    pub(super) target: NormalizedMap,
    pub(super) points: Option<ImagePoints>,
    pub(super) matches: Vec<PointMatch>,
}

impl MatchJob {
    fn run(self, source: &Side, target: &Side) -> Result<Matched, ApiError> {
        let source_map = stack(self.source_layers, LayerScaling::Unit)?.into_normalized();
        let target_map = stack(self.target_layers, LayerScaling::Unit)?.into_normalized();
        let count = self.points.as_ref().map_or(source_map.grid().cells(), ImagePoints::len);
        check_work(count, &target_map)?;
        let queries = self.points.as_ref().map_or(Queries::Cells, Queries::Points);
        let source_side = MatchSide { map: &source_map, image: source.size };
        let target_side = MatchSide { map: &target_map, image: target.size };
        let matches = correspond(source_side, target_side, queries, &self.options)?;
        Ok(Matched { source: source_map, target: target_map, points: self.points, matches })
    }
}

fn check_work(count: usize, target: &NormalizedMap) -> Result<(), ApiError> {
    let cells = target.grid().cells();
    let limit = MAX_MULTIPLICATIONS / target.channels() as u64;
    if (count as u64).saturating_mul(cells as u64) > limit {
        return Err(ApiError::TooManyComparisons { count, cells, limit });
    }
    Ok(())
}
