//! The manual pages and the completions, made from the table of flags. The files of the repository
//! are kept equal to these texts by `tests/docs.rs`.

mod complete;
mod man;

/// A file of the repository and what is in it.
pub struct File {
    /// Path from the root of the repository.
    pub path: &'static str,
    /// What is in it.
    pub text: String,
}

/// All files that are made.
pub fn files() -> Vec<File> {
    vec![
        File { path: "docs/man/ipvsadm.8", text: man::ipvsadm() },
        File { path: "docs/man/ipvsadm-save.8", text: man::SAVE.to_owned() },
        File { path: "docs/man/ipvsadm-restore.8", text: man::RESTORE.to_owned() },
        File { path: "completions/ipvsadm.bash", text: complete::bash() },
        File { path: "completions/_ipvsadm", text: complete::zsh() },
        File { path: "completions/ipvsadm.fish", text: complete::fish() },
    ]
}
