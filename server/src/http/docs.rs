//! The `OpenAPI` document and the pages that show it.

use axum::Router;
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Document;
use utoipa_swagger_ui::SwaggerUi;

use super::state::AppState;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "DenseCL server",
        description = "Dense features of images, and correspondences between images, from models pre-trained with DenseCL.\n\nCoordinates are `(x, y)` in pixels of the upright image, x to the right and y down; `(0, 0)` is the centre of the top-left pixel. Errors are RFC 9457 problems with a stable `type`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "features", description = "Images in, features and matches out"),
        (name = "models", description = "What is served"),
        (name = "operations", description = "For orchestrators and monitoring"),
    )
)]
struct Base;

/// What the document says beside the routes.
pub(super) fn base() -> Document {
    Base::openapi()
}

/// The whole document, as `/openapi.json` serves it.
pub fn document() -> Document {
    super::api().into_openapi()
}

pub(super) fn router(document: Document) -> Router<AppState> {
    SwaggerUi::new("/docs").url("/openapi.json", document).into()
}
