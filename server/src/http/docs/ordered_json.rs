//! JSON whose objects keep the order of their members: the first media type of a body is the one that pages show.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OrderedJson {
    /// An object, with its members in their order.
    Object(IndexMap<String, OrderedJson>),
    /// A list.
    List(Vec<OrderedJson>),
    /// Anything else.
    Other(Value),
}

impl OrderedJson {
    /// The member at the end of a path of names.
    pub(super) fn at_mut(&mut self, path: &[&str]) -> Option<&mut Self> {
        path.iter().try_fold(self, |value, name| match value {
            Self::Object(members) => members.get_mut(*name),
            Self::List(_) | Self::Other(_) => None,
        })
    }

    /// The members of an object, or the elements of a list.
    pub(super) fn children_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Object(members) => members.values_mut().collect(),
            Self::List(elements) => elements.iter_mut().collect(),
            Self::Other(_) => Vec::new(),
        }
    }

    /// True for an object whose member `name` is the text `text`.
    pub(super) fn has(&self, name: &str, text: &str) -> bool {
        match self {
            Self::Object(members) => members.get(name).is_some_and(|value| *value == Self::Other(text.into())),
            Self::List(_) | Self::Other(_) => false,
        }
    }

    /// Sets a member of an object.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Self>) {
        if let Self::Object(members) = self {
            members.insert(name.to_owned(), value.into());
        }
    }

    /// Removes a member of an object and returns it.
    pub(super) fn take(&mut self, name: &str) -> Option<Self> {
        match self {
            Self::Object(members) => members.shift_remove(name),
            Self::List(_) | Self::Other(_) => None,
        }
    }

    /// Moves a member of an object to its front, if it is there.
    pub(super) fn move_to_front(&mut self, name: &str) {
        if let Self::Object(members) = self
            && let Some(index) = members.get_index_of(name)
        {
            members.move_index(index, 0);
        }
    }
}

impl From<Value> for OrderedJson {
    fn from(value: Value) -> Self {
        Self::Other(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives() {
        let text = r#"{"b":{"z":1,"a":[null,{"y":true,"x":"w"}]},"a":2.5}"#;
        let mut json: OrderedJson = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&json).unwrap(), text);
        json.move_to_front("a");
        json.move_to_front("c");
        json.at_mut(&["b"]).unwrap().set("z", Value::from(7));
        let expected = r#"{"a":2.5,"b":{"z":7,"a":[null,{"y":true,"x":"w"}]}}"#;
        assert_eq!(serde_json::to_string(&json).unwrap(), expected);
        assert_eq!(json.at_mut(&["a", "b"]), None);
    }
}
