//! The command that starts a hub, split into words.

use crate::syntax::diagnostic::ValueError;

/// A program with its arguments. It is split as a POSIX shell splits words (quotes, backslashes) but run without a
/// shell: no variables, patterns or pipes. Signals therefore reach the hub itself, and the exit status is the
/// hub's. For more, write `sh -c '...'`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecCommand {
    /// The command as it was written.
    pub text: String,
    /// The program, then its arguments; never empty.
    pub words: Vec<String>,
}

impl ExecCommand {
    /// # Errors
    ///
    /// A quote is not closed, or the command is empty.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let words = shlex::split(text).ok_or_else(|| {
            ValueError::new(
                "this command has an open quote, or ends with a backslash",
                "close the quote, or remove the backslash",
            )
        })?;
        match words.first() {
            Some(program) if !program.is_empty() => Ok(Self { text: text.to_owned(), words }),
            _ => Err(ValueError::new(
                "this command names no program",
                "write a program and its arguments, such as ./hub --port 4000",
            )),
        }
    }

    /// Returns the command with the program at another path.
    pub(super) fn with_program(mut self, program: impl Into<String>) -> Self {
        self.words[0] = program.into();
        // Only NUL cannot be quoted, and no program name contains one.
        self.text = shlex::try_join(self.words.iter().map(String::as_str)).unwrap_or(self.text);
        self
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("./hub --port 4000", &["./hub", "--port", "4000"])]
    #[case("sh -c 'a | b; c'", &["sh", "-c", "a | b; c"])]
    #[case(r#"hub "two words" 'it''s' x\ y"#, &["hub", "two words", "its", "x y"])]
    #[case("hub $HOME *", &["hub", "$HOME", "*"])]
    fn a_command_is_split_into_words_like_in_a_shell(#[case] text: &str, #[case] words: &[&str]) {
        assert_eq!(ExecCommand::parse(text).unwrap().words, words);
    }

    #[rstest]
    #[case("", "names no program")]
    #[case("   ", "names no program")]
    #[case("'' x", "names no program")]
    #[case("hub 'x", "open quote")]
    #[case("hub \\", "ends with a backslash")]
    fn an_empty_or_badly_quoted_command_is_refused(#[case] text: &str, #[case] message: &str) {
        let error = ExecCommand::parse(text).unwrap_err();
        assert!(error.message.contains(message), "{error}");
    }
}
