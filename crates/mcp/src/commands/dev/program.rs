//! Whether there is a program to run, before anything is started for it.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::{Error, anyhow};
use rustix::fs::{Access, access};

use crate::context;

/// Checks that the app's program is there: on `search`, a list of directories as in `PATH`, or
/// where it has a slash, relative to the root. The system resolves it in the same way when the app
/// is started in the root's copy.
pub(super) fn check(program: &OsStr, root: &Path, search: Option<&OsStr>) -> Result<(), Error> {
    let shown = program.display();
    let is_program = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.as_encoded_bytes().contains(&b'/') {
        let path = root.join(program);
        return match path.metadata() {
            Ok(_) if is_program(&path) => Ok(()),
            Ok(_) => Err(anyhow!(
                "“{shown}” can't be run: {} is no file that may be executed",
                path.display()
            )),
            Err(error) => Err(anyhow!(error).context(format!(
                "“{shown}” can't be run: there is no {}",
                path.display()
            ))),
        };
    }
    let directories: Vec<PathBuf> = search.map(env::split_paths).into_iter().flatten().collect();
    let found = |directory: &PathBuf| is_program(&root.join(directory).join(program));
    if directories.iter().any(found) {
        return Ok(());
    }
    let looked: Vec<_> = directories
        .iter()
        .map(|directory| directory.display().to_string())
        .collect();
    let beside = match is_program(&root.join(program)) {
        true => format!(" (it is in the root: that would be ./{shown})"),
        false => String::new(),
    };
    Err(anyhow!(
        "“{shown}” can't be run: there is no such program in {}{beside}",
        looked.join(", ")
    ))
}

/// What the app's `PATH` will be.
pub(super) fn search<'a>(
    mut environment: impl Iterator<Item = (&'a str, &'a str)>,
) -> Option<OsString> {
    match environment.find(|(name, _)| *name == "PATH") {
        Some((_, value)) => Some(value.into()),
        None => context::search_path(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_program_is_found_where_the_app_will_be_started() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("bin")).unwrap();
        for name in ["run.sh", "bin/tool"] {
            fs::write(root.join(name), "").unwrap();
            fs::set_permissions(root.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        fs::write(root.join("data"), "").unwrap();
        let check = |program: &str, search: &str| {
            let checked = check(program.as_ref(), root, Some(search.as_ref()));
            checked.map_err(|error| format!("{error:#}"))
        };
        assert_eq!(check("./run.sh", ""), Ok(()));
        assert_eq!(check("sh", "/nowhere:/bin"), Ok(()));
        // As the system does, an entry that is relative is one of the working directory.
        assert_eq!(check("tool", "/nowhere:bin"), Ok(()));
        let absolute = root.join("run.sh");
        assert_eq!(check(absolute.to_str().unwrap(), ""), Ok(()));

        let missing = check("pyton3", "/bin:/usr/bin").unwrap_err();
        assert!(missing.contains("“pyton3”") && missing.contains("/bin, /usr/bin"));
        assert!(check("run.sh", "/bin").unwrap_err().contains("./run.sh"));
        assert!(check("./gone.sh", "").unwrap_err().contains("gone.sh"));
        assert!(check("./data", "").unwrap_err().contains("executed"));
        assert!(check("./bin", "").unwrap_err().contains("executed"));
    }
}
