//! The `schema` key of a route: a file that is read and compiled when the config is loaded.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::config::leaf::MIB;
use crate::config::reading::{Reading, join};
use crate::schema::Schema;

/// Reads and compiles the file once; a [`Schema`] needs no second look.
pub(super) fn meant(file: &Path, route: &str, reading: &mut Reading<'_>) -> Option<Schema> {
    let path = reading.beside(file);
    match read(&path).and_then(|text| Schema::compile(&text)) {
        Ok(schema) => Some(schema),
        Err(wish) => {
            reading.fault(&join(route, "schema"), format!("{}: {wish}", path.display()));
            None
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let unread = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unread)?;
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(unread)?;
    if text.len() as u64 > FILE_MAX {
        return Err(format!("is larger than {}MiB", FILE_MAX / MIB));
    }
    Ok(text)
}

/// A hundred times what an API's schemas take.
const FILE_MAX: u64 = MIB;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment, parse};

    /// The config in a folder that holds this schema.
    fn config(schema: &[u8]) -> Result<Config, String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("order.json"), schema).expect("written");
        let text = "routes:\n  - name: a\n    match: {hosts: [a.test]}\n    schema: order.json\n";
        let file = folder.path().join("samekey.yaml");
        let parsed = parse(text, &file, &Environment::default());
        let shown = format!("{}/", folder.path().display());
        parsed.map_err(|faults| faults.to_string().replace(&shown, ""))
    }

    #[test]
    fn a_schema_is_found_beside_the_config() {
        let config = config(br#"{"type": "object"}"#).expect("no fault");
        let schema = config.routes[0].schema.as_ref().expect("a schema");
        assert!(schema.check(b"{}").is_ok() && schema.check(b"[]").is_err());
    }

    #[test]
    fn what_is_wrong_with_a_schema_names_the_file() {
        for (text, wanted) in [
            (&b"{"[..], "order.json: is not JSON: EOF while parsing an object at line 1 column 1"),
            (
                br#"{"$ref": "https://b.test/s.json"}"#,
                "order.json: is not a JSON Schema that can be used: ",
            ),
            (br#"{"type": 7}"#, "order.json: is not a JSON Schema that can be used: "),
        ] {
            let told = config(text).expect_err("a fault");
            let wanted = format!("samekey.yaml:4: routes[0].schema: {wanted}");
            assert!(told.starts_with(&wanted), "{told}");
        }
        let missing = "routes: [{name: a, match: {hosts: [a]}, schema: none.json}]";
        let told = parse(missing, Path::new("a.yaml"), &Environment::default());
        let told = told.expect_err("no such file").to_string();
        assert!(
            told.contains("routes[0].schema: none.json: cannot be read: No such file"),
            "{told}"
        );
    }

    #[test]
    fn a_schema_is_read_up_to_a_size() {
        let most = usize::try_from(FILE_MAX).expect("small");
        for (size, is_read) in [(most - 1, true), (most, true), (most + 1, false)] {
            let mut text = b"{}".to_vec();
            text.resize(size, b' ');
            assert_eq!(config(&text).is_ok(), is_read, "{size}");
        }
    }
}
