/// When to use a method that is not always an advantage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// When it was measured to be an advantage.
    #[default]
    Auto,
    /// Whenever possible.
    Always,
    /// Never.
    Never,
}
