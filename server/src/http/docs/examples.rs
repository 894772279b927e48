//! Examples of requests: they can be sent as they are.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use densecl_inference::registry::Registry;
use densecl_models::geometry::CELL_MULTIPLE_PX;
use densecl_vision::image::{DecodeLimits, ImageSize, decode, resize};
use serde_json::{Value, json};

use super::ordered_json::OrderedJson;

/// Two views of one photograph, 64 x 48: `chelsea.png` of scikit-image, by Stéfan van der Walt, CC0.
const SOURCE: &[u8] = include_bytes!("source.jpg");
const TARGET: &[u8] = include_bytes!("target.jpg");

/// The JSON object of a request to `/features`.
pub(in crate::http) fn features_object() -> Value {
    json!({"images": [BASE64.encode(SOURCE)]})
}

/// The JSON object of a request to `/correspondence`.
pub(in crate::http) fn correspondence_object() -> Value {
    json!({"source": BASE64.encode(SOURCE), "target": BASE64.encode(TARGET), "points": [[38, 22]]})
}

/// A request of inference, with the pixels of a picture.
static INFERENCE_OBJECT: LazyLock<Option<Value>> = LazyLock::new(|| {
    let side = CELL_MULTIPLE_PX;
    let photo = decode(SOURCE, &DecodeLimits { max_pixels: 1 << 16 }).ok()?;
    let pixels = resize(&photo, ImageSize { width: side, height: side }).ok()?.into_raw();
    let input = json!({"name": "images", "datatype": "UINT8", "shape": [1, side, side, 3], "data": pixels});
    Some(json!({"inputs": [input]}))
});

/// Adds the name and the version of a model that is served to every path that asks for one, and a body to inference.
pub(super) fn add_for_models(document: &mut OrderedJson, registry: &Registry) {
    let Ok(model) = registry.find(None, None) else { return };
    let Some(OrderedJson::Object(paths)) = document.at_mut(&["paths"]) else { return };
    for (path, operations) in paths {
        for operation in operations.children_mut() {
            if let Some(parameters) = operation.at_mut(&["parameters"]) {
                for parameter in parameters.children_mut().into_iter().filter(|it| it.has("in", "path")) {
                    if parameter.has("name", "name") {
                        parameter.set("example", Value::from(model.name()));
                    } else if parameter.has("name", "version") {
                        parameter.set("example", Value::from(model.version().to_string()));
                    }
                }
            }
            let body = operation.at_mut(&["requestBody", "content", "application/json"]);
            if let (true, Some(body), Some(example)) = (path.ends_with("/infer"), body, &*INFERENCE_OBJECT) {
                body.set("example", example.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pictures_are_pictures() {
        for file in [SOURCE, TARGET] {
            let picture = decode(file, &DecodeLimits { max_pixels: 1 << 16 }).unwrap();
            assert_eq!(picture.dimensions(), (64, 48));
        }
        let inference = INFERENCE_OBJECT.as_ref().unwrap();
        assert_eq!(inference["inputs"][0]["data"].as_array().unwrap().len(), 32 * 32 * 3);
    }
}
