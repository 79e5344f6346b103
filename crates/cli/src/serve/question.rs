use std::fmt;
use std::net::SocketAddr;

/// The command by which a user asks a server for the first time, indented, as the documentation has
/// it too. A small model does not ramble at temperature 0.
pub(super) struct Question<'a> {
    pub(super) address: &'a SocketAddr,
    pub(super) model: &'a str,
}

impl fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, model } = self;
        write!(
            f,
            r#"  curl http://{address}/v1/chat/completions -H 'content-type: application/json' -d '{{
    "model": "{model}", "temperature": 0,
    "messages": [{{"role": "user", "content": "What is the capital of France?"}}]
  }}'
"#
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_documentation_asks_the_same() {
        let question = Question {
            address: &"127.0.0.1:8000".parse().unwrap(),
            model: "smollm2-135m",
        };
        let question = question.to_string();
        let lines = question
            .lines()
            .map(|line| line.strip_prefix("  ").unwrap());
        let question = lines.collect::<Vec<_>>().join("\n");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for page in ["README.md", "docs/quick-start.md", "docs/cluster.md"] {
            let text = std::fs::read_to_string(root.join(page)).unwrap();
            assert!(text.contains(&question), "{page} has not:\n{question}");
        }
    }
}
