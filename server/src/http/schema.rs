//! Building blocks of schemas in the `OpenAPI` document for bodies that no Rust type stands for: they are read part by
//! part, or written piece by piece.

use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};

/// An object without members yet.
pub(super) fn object(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().description(Some(description))
}

/// A value of one type.
pub(super) fn value(kind: Type, description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind).description(Some(description))
}

/// A value of one type, or null.
pub(super) fn nullable(kind: Type, description: &str) -> ObjectBuilder {
    let types = SchemaType::from_iter([kind, Type::Null]);
    ObjectBuilder::new().schema_type(types).description(Some(description))
}

/// The bytes of a file.
pub(super) fn binary(value: ObjectBuilder) -> ObjectBuilder {
    value.format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
}

/// A list of values.
pub(super) fn list(items: impl Into<RefOr<Schema>>, description: &str) -> ArrayBuilder {
    ArrayBuilder::new().items(items.into()).description(Some(description))
}

/// A list of values, or null.
pub(super) fn nullable_list(items: impl Into<RefOr<Schema>>, description: &str) -> ArrayBuilder {
    list(items, description).schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
}

/// An item of a list: text, or an object with any members.
pub(super) fn item(kind: Type) -> RefOr<Schema> {
    RefOr::T(Schema::Object(Object::with_type(kind)))
}

/// The schema of another component.
pub(super) fn component(name: &str) -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name(name))
}
