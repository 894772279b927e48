//! The `OpenAPI` document and the pages that show it.

use axum::Router;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{OpenApi as Document, RefOr, Schema};
use utoipa::{OpenApi, PartialSchema, ToSchema};
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
        (name = "open inference protocol", description = "KServe v2, with Triton's extensions for binary tensors and model repositories. Problems have a member `error` besides"),
        (name = "operations", description = "For orchestrators and monitoring"),
    )
)]
struct Base;

/// Bytes as they are, for the types of bodies that are no text.
pub(super) struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).into()
    }
}

impl ToSchema for Binary {}

/// Corrects objects that are described by several others at once. Each is closed to fields that it
/// does not know, as the reader of all together is; read by itself it would refuse the others'.
pub(super) fn open_flattened_objects(document: &mut Document) {
    let schemas = document.components.iter_mut().flat_map(|components| components.schemas.values_mut());
    for schema in schemas {
        let RefOr::T(Schema::AllOf(parts)) = schema else { continue };
        for part in &mut parts.items {
            if let RefOr::T(Schema::Object(object)) = part {
                object.additional_properties = None;
            }
        }
    }
}

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
