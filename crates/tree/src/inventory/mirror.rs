//! What a mirror takes away: what lies in the root, was never pushed, and is not ignored.

use std::{collections::BTreeMap, sync::Arc};

use patchwire_protocol::{
    limits,
    manifest::{Entry, Manifest},
    path::RelativePath,
};

use super::{Inventory, Observer, Standing};
use crate::{
    confine::{Dir, Kind, PathError},
    rules::{IGNORE_FILES, Rules, RulesError, Scope, Visit, is_never_pushed},
    store::{Store, StoreError},
};

impl Store {
    /// As [`Self::inventory`], with all else in the root that the ignore files there don't ignore,
    /// nor the patterns `ignore`, whatever `include` says: the base of a push that is to leave
    /// nothing of it. A directory that holds only what is ignored is left out.
    ///
    /// # Errors
    ///
    /// [`StoreError`], also if one of the patterns is none.
    pub fn inventory_for_mirror(
        &mut self,
        ignore: &[String],
        include: &[String],
    ) -> Result<Inventory, StoreError> {
        self.check_whole()?;
        let rules = Rules::outside_repository(include, ignore).map_err(RulesError::Pattern)?;
        self.look_at_managed()?;
        let differing = self.vigil.differing().clone();
        let drift = differing.keys().cloned().collect();
        let mut beside = Beside {
            managed: &self.managed,
            rules: &rules,
            state: (self.state_stat.device, self.state_stat.inode),
            observer: Observer::new(&self.index),
            found: Vec::new(),
        };
        beside.look(&self.root, None, rules.above(), Visit::Normal)?;
        let Beside {
            observer, found, ..
        } = beside;
        let read = observer.read;
        let changes: BTreeMap<_, _> = differing.into_iter().chain(found).collect();
        let manifest = self.managed.with_changes(&changes);
        self.remember(read);
        Ok(Inventory {
            // Found by a walk, so always a tree; were it not, nothing would be known to be there.
            manifest: Arc::new(manifest.unwrap_or_default()),
            drift,
        })
    }
}

/// A walk for what lies beside the managed paths.
struct Beside<'a> {
    managed: &'a Manifest,
    rules: &'a Rules,
    /// Device and inode of the state directory.
    state: (u64, u64),
    observer: Observer<'a>,
    found: Vec<Standing>,
}

impl Beside<'_> {
    /// Looks into the directory `at`, which `within` says how it came to be visited. What can't be
    /// read stays where it is.
    fn look(
        &mut self,
        dir: &Dir,
        at: Option<&RelativePath>,
        above: &Scope,
        within: Visit,
    ) -> Result<(), PathError> {
        let Ok(names) = dir.list() else {
            return Ok(());
        };
        let bytes = at.map_or(&b""[..], RelativePath::as_bytes);
        let has_rules = names.iter().any(|name| IGNORE_FILES.contains(&&name[..]));
        let scope = match has_rules {
            true => self.rules.enter(above, bytes, dir)?,
            false => above.clone(),
        };
        for name in names {
            let path = match at {
                _ if is_never_pushed(bytes, &name) => continue,
                Some(at) => at.join(&name),
                None => RelativePath::new(name.clone()),
            };
            if let Ok(path) = path {
                self.look_at(dir, &path, &scope, within)?;
            }
        }
        Ok(())
    }

    fn look_at(
        &mut self,
        dir: &Dir,
        path: &RelativePath,
        scope: &Scope,
        within: Visit,
    ) -> Result<(), PathError> {
        let Ok(stat) = dir.stat(path.name()) else {
            return Ok(());
        };
        let managed = self.managed.get(path);
        if managed.is_some() && stat.kind != Kind::Directory {
            return Ok(());
        }
        let Ok(Some(entry)) = self.observer.observe(dir, path, &stat) else {
            return Ok(());
        };
        let is_state = (stat.device, stat.inode) == self.state;
        let is_full = (self.managed.len() + self.found.len()) as u64 >= limits::ENTRIES;
        if is_state || is_full {
            return Ok(());
        }
        let visit = self
            .rules
            .judge(scope, path.as_bytes(), entry.is_directory(), within);
        // In a directory that was pushed though it is ignored, the rest is ignored.
        let visit = visit.or(managed.map(|_| Visit::Selected));
        let Some(visit) = visit else {
            return Ok(());
        };
        let place = self.found.len();
        if let Entry::Directory { .. } = entry {
            let Ok(inner) = dir.open_dir(path.name()) else {
                return Ok(());
            };
            self.look(&inner, Some(path), scope, visit)?;
            let holds_some = self.found.len() > place;
            let is_empty = visit != Visit::Selected && inner.list().is_ok_and(|l| l.is_empty());
            if !holds_some && !is_empty {
                return Ok(());
            }
        }
        if managed.is_none() {
            self.found.push((path.clone(), Some(entry)));
        }
        Ok(())
    }
}
