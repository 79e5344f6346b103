//! The `tojson` filter: JSON as Python's `json.dumps` writes it, which the prompts that models were
//! trained on contain.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::Formatter;

/// `tojson(value, ensure_ascii=false, indent=none, separators=none, sort_keys=false)`, as Hugging
/// Face `transformers` defines it for chat templates.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let ascii = options
        .get::<Option<bool>>("ensure_ascii")?
        .unwrap_or(false);
    let indent = options.get::<Option<usize>>("indent")?;
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "separators must be two strings",
            ));
        }
    };
    let style = PythonStyle {
        item,
        key,
        indent,
        depth: 0,
        empty: true,
        ascii,
    };

    let mut output = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut output, style);
    let written = if sort_keys {
        serde_json::to_value(value).and_then(|mut value| {
            value.sort_all_objects();
            value.serialize(&mut serializer)
        })
    } else {
        value.serialize(&mut serializer)
    };
    written.map_err(|error| {
        Error::new(ErrorKind::BadSerialization, "cannot be written as JSON").with_source(error)
    })?;
    Ok(String::from_utf8(output).expect("JSON is UTF-8"))
}

struct PythonStyle<'a> {
    item: &'a str,
    key: &'a str,
    indent: Option<usize>,
    depth: usize,
    /// Whether the innermost container has no item yet.
    empty: bool,
    ascii: bool,
}

impl PythonStyle<'_> {
    fn begin<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(bracket)
    }

    fn end<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !std::mem::replace(&mut self.empty, false) {
            self.new_line(writer)?;
        }
        writer.write_all(bracket)
    }

    fn item<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.new_line(writer)
    }

    fn new_line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else {
            return Ok(());
        };
        writer.write_all(b"\n")?;
        (0..indent * self.depth).try_for_each(|_| writer.write_all(b" "))
    }
}

impl Formatter for PythonStyle<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.item(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.item(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.empty = false;
        Ok(())
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for character in fragment.chars() {
            if character.is_ascii() {
                write!(writer, "{character}")?;
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

/// A finite float as Python's `repr` writes it: the shortest digits that read back the same, with
/// an exponent below 1e-4 and from 1e16.
fn python_float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return format!("{value:?}");
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dump(json: &str, options: &[(&str, Value)]) -> String {
        let value: serde_json::Value = serde_json::from_str(json).unwrap();
        let options = options
            .iter()
            .map(|(name, value)| (*name, value.clone()))
            .collect();
        tojson(&Value::from(minijinja::value::Serde(value)), options).unwrap()
    }

    /// Expected texts are those of Python 3's `json.dumps(value, ensure_ascii=False)`.
    #[test]
    fn writes_what_python_writes() {
        let json = r#"{"b": [1, 2.0, true, null, {}], "a": {"é\"\n</x>": "\u0001🙂"}, "c": []}"#;
        assert_eq!(
            dump(json, &[]),
            r#"{"b": [1, 2.0, true, null, {}], "a": {"é\"\n</x>": "\u0001🙂"}, "c": []}"#
        );
        assert_eq!(
            dump(
                json,
                &[("indent", Value::from(2)), ("sort_keys", Value::from(true))]
            ),
            "{\n  \"a\": {\n    \"é\\\"\\n</x>\": \"\\u0001🙂\"\n  },\n  \"b\": [\n    1,\n    2.0,\n    \
             true,\n    null,\n    {}\n  ],\n  \"c\": []\n}"
        );
        assert_eq!(
            dump(
                r#"["é🙂", 1]"#,
                &[
                    ("ensure_ascii", Value::from(true)),
                    ("separators", Value::from(vec![",", ":"])),
                ]
            ),
            r#"["\u00e9\ud83d\ude42",1]"#
        );
    }

    #[test]
    fn floats_are_python_s() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.5, "-0.5"),
            (1e-4, "0.0001"),
            (1.5e-5, "1.5e-05"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-1.25e300, "-1.25e+300"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(python_float(value), text);
        }
    }

    #[test]
    fn unknown_options_are_refused() {
        let options = [("indents", Value::from(2))].into_iter().collect();
        assert!(tojson(&Value::from(1), options).is_err());
    }
}
