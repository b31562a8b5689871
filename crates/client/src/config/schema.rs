//! The JSON schema of `patchwire.toml`, for editors that complete and check it.
//!
//! It is the keys of [`Settings`] with their descriptions. It accepts what the parser accepts, but
//! for what a pattern can't tell (whether a port is one, how long a duration is).

use std::borrow::Cow;

use patchwire_protocol::app::Signal;
use schemars::{
    Schema, SchemaGenerator, generate::SchemaSettings, json_schema, transform::RecursiveTransform,
};
use serde_json::{Value, json};

use super::{FILE_NAME, Settings};

/// Where the schema is published, for a file's first line.
pub const URL: &str =
    "https://raw.githubusercontent.com/patchwire/patchwire/main/docs/patchwire.schema.json";

/// A duration as `humantime` reads it: numbers with units, one after another.
const DURATION: &str = r"^(\s*[0-9]+(\.[0-9]+)?\s*[a-zA-Zµ]+)+\s*$";

/// Writes the schema.
#[must_use]
pub fn schema() -> Value {
    // Draft 7 is what the editors' TOML extensions understand in full.
    let settings = SchemaSettings::draft07()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(RecursiveTransform(unwrap_description));
    let mut schema = settings.into_generator().into_root_schema_for::<Settings>();
    schema.insert("$id".to_owned(), json!(URL));
    schema.insert("title".to_owned(), json!(FILE_NAME));
    let description = "Which app and deployment a directory belongs to, and how it is pushed.";
    schema.insert("description".to_owned(), json!(description));
    schema.to_value()
}

/// Makes one line of a description, which the source wraps.
fn unwrap_description(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

pub(super) fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$",
    })
}

pub(super) fn symlinks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["inside", "any"], "default": "inside"})
}

pub(super) fn modes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["all", "executable"], "default": "all"})
}

pub(super) fn reload(_: &mut SchemaGenerator) -> Schema {
    // As values of their own, signals are offered for completion.
    let signals = Signal::ALL.map(|signal| Cow::from(format!("signal:{signal}")));
    let words: Vec<_> = ["restart".into(), "none".into()]
        .into_iter()
        .chain(signals)
        .collect();
    json_schema!({
        "type": "string",
        "default": "restart",
        "anyOf": [
            {"enum": words},
            {"pattern": "^signal:[A-Za-z0-9]+$"},
            {"pattern": "^command:.*\\S"},
        ],
    })
}

pub(super) fn ready(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "default": "alive:1s",
        "examples": ["http://127.0.0.1:8000/health", "tcp:8000", "alive:2s"],
        "anyOf": [
            {"enum": ["auto"]},
            {"pattern": "^http://[^/?#@]+([/?][^#]*)?$"},
            {"pattern": "^tcp:[0-9]{1,5}$"},
            {"pattern": "^command:.*\\S"},
            {"pattern": DURATION.replacen('^', "^alive:", 1)},
        ],
    })
}

pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": DURATION})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described() {
        let schema = schema();
        let keys = schema["properties"].as_object().unwrap();
        assert!(keys.contains_key("ready_timeout"));
        let watch = &schema["properties"]["watch"];
        let of_watch = watch["properties"].as_object().unwrap();
        for (key, value) in keys.iter().chain(of_watch) {
            assert!(value["description"].is_string(), "{key}");
        }
        assert_eq!(watch["additionalProperties"], json!(false));
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(schema.get("required"), None);
    }
}
