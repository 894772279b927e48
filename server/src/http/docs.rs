//! The `OpenAPI` document: what all routes share of it, its examples, and the pages that show it.

pub(super) mod examples;
mod ordered_json;
mod pages;

use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{OpenApi as Document, RefOr, Schema};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use self::ordered_json::OrderedJson;
pub(super) use self::pages::router;
use super::guard::authenticate::is_open;
use super::problem::responses::unauthorized;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "DenseCL server",
        description = "Dense features of images, and correspondences between images, from models pre-trained with DenseCL.\n\nCoordinates are `(x, y)` in pixels of the upright image, x to the right and y down; `(0, 0)` is the centre of the top-left pixel. Errors are RFC 9457 problems with a stable `type`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    // The folder of the document, so that a proxy may put a prefix before all paths.
    servers((url = ".")),
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

/// The whole document, as `densecl-server openapi` prints it. `/openapi.json` adds examples for a model that is served.
pub fn document() -> OrderedJson {
    ordered(&super::api().into_openapi())
}

/// The document as JSON. Of the media types of a body or a reply, pages show the first, which is the one that is easiest to
/// try: a form, and a picture as its answer.
pub(super) fn ordered(document: &Document) -> OrderedJson {
    let text = serde_json::to_string(document).expect("the document has text keys");
    let mut document: OrderedJson = serde_json::from_str(&text).expect("JSON was written");
    let operations = document.at_mut(&["paths"]).map(OrderedJson::children_mut).into_iter().flatten();
    for operation in operations.flat_map(OrderedJson::children_mut) {
        for (path, media_type) in
            [(&["requestBody", "content"][..], "multipart/form-data"), (&["responses", "200", "content"], "image/png")]
        {
            if let Some(content) = operation.at_mut(path) {
                content.move_to_front(media_type);
            }
        }
        for parameter in operation.at_mut(&["parameters"]).map(OrderedJson::children_mut).into_iter().flatten() {
            // A blank field of a form counts as not given.
            if parameter.has("in", "query") {
                parameter.set("allowEmptyValue", serde_json::Value::Bool(true));
            }
            // utoipa describes no parameter whose schema is made by a function; the schema has the description then.
            let described = parameter.at_mut(&["schema"]).and_then(|schema| schema.take("description"));
            if let Some(description) = described {
                parameter.set("description", description);
            }
        }
    }
    document
}
