//! What the doctor finds.

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Worth knowing; nothing has to be done.
    Note,
    /// Works, and would work better.
    Warning,
    /// Programs cannot be paged.
    Problem,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at, in a word or two.
    pub(crate) about: String,
    /// How much it matters.
    pub(crate) state: State,
    /// What was found.
    pub(crate) text: String,
    /// What to do about it, in words; none where nothing has to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    /// Shell commands for root that do it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) commands: Vec<String>,
}

impl Finding {
    /// A finding without remedy.
    pub(crate) fn new(about: &str, state: State, text: impl Into<String>) -> Finding {
        Finding {
            about: about.to_owned(),
            state,
            text: text.into(),
            remedy: None,
            commands: Vec::new(),
        }
    }

    /// With what to do about it.
    pub(crate) fn remedy(mut self, text: impl Into<String>) -> Finding {
        self.remedy = Some(text.into());
        self
    }

    /// With the commands that do it.
    pub(crate) fn commands<S: Into<String>>(
        mut self,
        commands: impl IntoIterator<Item = S>,
    ) -> Finding {
        self.commands = commands.into_iter().map(Into::into).collect();
        self
    }
}
