//! A root whose tree is kept warm between pushes, from file-system events.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use patchwire_tree::{Scan, ScanError, ScanOptions, ScanProgress, listen};

use crate::{memory::Memory, watch::Look};

/// Knows what a root held when it was pushed last, and hears of what happens in it: the next push
/// looks only there. It takes an inotify watch for each directory of the tree, and about 600 bytes of
/// memory per entry.
///
/// For a program that pushes one root again and again. Where events can't be had all of it is scanned.
#[derive(Clone, Debug, Default)]
pub struct WarmTree(Arc<Mutex<Option<Warm>>>);

#[derive(Debug)]
struct Warm {
    look: Look,
    root: PathBuf,
    options: ScanOptions,
    state: PathBuf,
    hearing: Hearing,
}

/// How far it is with hearing of saves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    NotYet,
    Begun,
    /// It can't be, or not any more.
    Deaf,
}

impl WarmTree {
    /// Scans the root, or what of it changed. Blocks.
    pub(crate) fn scan(
        &self,
        root: &Path,
        options: &ScanOptions,
        memory: &Arc<Memory>,
        progress: &(dyn Fn(ScanProgress) + Sync),
    ) -> Result<Scan, ScanError> {
        // Another scan of it, or what is done after a push, takes no longer than one of everything.
        let mut warm = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = memory.directory();
        let same =
            |warm: &mut Warm| warm.root == root && warm.options == *options && warm.state == state;
        drop(warm.take_if(|warm| !same(warm)));
        let warm = warm.get_or_insert_with(|| Warm {
            look: Look::new(root, options, memory),
            root: root.to_owned(),
            options: options.clone(),
            state: state.to_owned(),
            hearing: Hearing::NotYet,
        });
        warm.look.once(progress)
    }

    /// Has the next scan look at all there is.
    pub(crate) fn doubt(&self) {
        let mut warm = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(warm) = &mut *warm {
            warm.look.doubt();
        }
    }

    /// Watches what was scanned, so that the next scan need not look at all of it. Blocks for about as
    /// long as a scan: for the time after a push.
    pub(crate) fn prepare(&self) {
        let mut warm = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(warm) = &mut *warm else {
            return;
        };
        match warm.hearing {
            Hearing::NotYet => {
                let (_, watches) = listen(&warm.root, &warm.state);
                warm.look.watches = Some(watches);
                warm.hearing = Hearing::Begun;
            }
            Hearing::Begun => {}
            Hearing::Deaf => return,
        }
        let seen = warm.look.look(false, &|_| ());
        if let Some(error) = seen.deaf {
            tracing::info!(%error, "each push scans all of {}", warm.root.display());
            warm.hearing = Hearing::Deaf;
        }
    }
}
