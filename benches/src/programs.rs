//! The programs of this workspace, as whoever measures them starts them.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

/// Where the programs are.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Builds them as this program was built. Without cargo around they are what lies beside it.
    pub(crate) fn build(names: &[&str]) -> anyhow::Result<Self> {
        if let Some(cargo) = env::var_os("CARGO") {
            let mut build = Command::new(cargo);
            build.arg("build");
            for name in names {
                build.args(["--bin", name]);
            }
            build.arg("--manifest-path");
            build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
            if cfg!(not(debug_assertions)) {
                build.arg("--release");
            }
            // What cargo says of this package is taken for a change by others' build scripts, which
            // would then build most of the workspace anew.
            for (name, _) in env::vars_os() {
                let text = name.to_string_lossy();
                if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                    build.env_remove(name);
                }
            }
            ensure!(build.status()?.success(), "{names:?} can't be built");
        }
        let programs = Self {
            dir: env::current_exe()?.with_file_name(""),
        };
        for name in names {
            let path = programs.path(name);
            ensure!(path.exists(), "there is no {}", path.display());
        }
        Ok(programs)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// Lets a command have neither settings nor state of the user's, but a home of its own.
pub(crate) fn isolate(command: &mut Command, home: &Path) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let prefixes = ["PATCHWIRE_", "XDG_", "GIT_", "RSYNC_", "RUST_LOG"];
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).env("GIT_CONFIG_NOSYSTEM", "1");
}
