//! The `OpenAPI` document and the pages that show it.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{OpenApi as Document, RefOr, Schema};
use utoipa::{OpenApi, PartialSchema, ToSchema};
use utoipa_swagger_ui::SwaggerUi;

use super::guard::authenticate::is_open;
use super::problem::responses::unauthorized;
use super::state::AppState;

/// Swagger UI needs inline styles; scripts come from this server alone.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "DenseCL server",
        description = "Dense features of images, and correspondences between images, from models pre-trained with DenseCL.\n\nCoordinates are `(x, y)` in pixels of the upright image, x to the right and y down; `(0, 0)` is the centre of the top-left pixel. Errors are RFC 9457 problems with a stable `type`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "features", description = "Images in, features and matches out"),
        (name = "models", description = "The models that are served"),
        (name = "open inference protocol", description = "KServe v2, with Triton's extensions for binary tensors and model repositories. Problems also have a member `error`"),
        (name = "operations", description = "Probes and metrics, for orchestrators and monitoring"),
    )
)]
struct Base;

/// Schema of a body of raw bytes.
pub(super) struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).into()
    }
}

impl ToSchema for Binary {}

/// Corrects schemas that combine several objects by `allOf`. Each part forbids unknown fields, and would therefore
/// refuse the fields of the other parts.
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

/// Describes how a key is sent to every route that needs one, and the 401 of a request without. Sending no key is
/// listed as well: a server that was given no keys asks for none.
pub(super) fn describe_keys(document: &mut Document) {
    let components = document.components.get_or_insert_default();
    let key = ApiKeyValue::with_description("X-API-Key", "Instead of `Authorization`");
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("A key from the operator of the server, if it asks for keys")).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
    let none: [&str; 0] = [];
    let alternatives = [
        SecurityRequirement::new("bearer", none),
        SecurityRequirement::new("apiKey", none),
        SecurityRequirement::default(),
    ];
    let locked = document.paths.paths.iter_mut().filter(|(path, _)| !is_open(path));
    for operation in locked.flat_map(|(_, item)| [item.get.as_mut(), item.post.as_mut()]).flatten() {
        operation.security = Some(alternatives.to_vec());
        operation.responses.responses.entry("401".to_owned()).or_insert_with(|| unauthorized().into());
    }
}

/// The document without routes.
pub(super) fn base_document() -> Document {
    Base::openapi()
}

/// The whole document, as `/openapi.json` serves it.
pub fn document() -> Document {
    super::api().into_openapi()
}

pub(super) fn router(document: Document) -> Router<AppState> {
    let pages: Router<AppState> = SwaggerUi::new("/docs").url("/openapi.json", document).into();
    pages.layer(middleware::map_response(async |mut response: Response| {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        // The pages change with the server's version.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }))
}
