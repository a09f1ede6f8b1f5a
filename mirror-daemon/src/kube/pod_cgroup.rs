//! Knows a pod by the name of its cgroup, whatever driver and runtime made it:
//!
//! | driver | directory |
//! |---|---|
//! | cgroupfs | `kubepods/burstable/pod<uid>/<container>`, guaranteed pods `kubepods/pod<uid>` |
//! | systemd | `kubepods-burstable-pod<uid with _>.slice/cri-containerd-<container>.scope` (`crio-`, `docker-`) |
//!
//! Kubelets can have a prefix of their own (`cgroupRoot`), so only the pod's own directory name is looked at.

use std::path::{Path, PathBuf};

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodCgroup {
    /// The pod's UID, as the API server writes it; for static pods the hash of their manifest.
    pub uid: String,
    /// Its directory.
    pub path: PathBuf,
}

/// Length of a UUID, and of a static pod's hash.
const UID_BYTES: [usize; 2] = [36, 32];

impl PodCgroup {
    /// The pod whose cgroup this directory is; `None` when it is none, or is a container's.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let uid = match name.strip_suffix(".slice") {
            Some(slice) => slice.rsplit_once("-pod").filter(|(parent, _)| parent.contains("kubepods"))?.1,
            None => name.strip_prefix("pod")?,
        };
        let uid = uid.replace('_', "-");
        let is_uid = UID_BYTES.contains(&uid.len())
            && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_uid.then(|| Self { uid, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

    fn uid_of(path: &str) -> Option<String> {
        PodCgroup::of(Path::new(path)).map(|pod| pod.uid)
    }

    #[test]
    fn pods_are_known_under_every_driver() {
        let with_underscores = UID.replace('-', "_");
        for path in [
            format!("/sys/fs/cgroup/kubepods/burstable/pod{UID}"),
            format!("/sys/fs/cgroup/kubepods/pod{UID}"),
            format!("/sys/fs/cgroup/unified/test-node-1/kubepods/besteffort/pod{UID}"),
            format!(
                "/x/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{with_underscores}.slice"
            ),
            format!("/x/kubepods.slice/kubepods-pod{with_underscores}.slice"),
            format!(
                "/x/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort-pod{with_underscores}.slice"
            ),
        ] {
            assert_eq!(uid_of(&path).as_deref(), Some(UID), "{path}");
        }
        let hash = "0123456789abcdef0123456789abcdef";
        assert_eq!(uid_of(&format!("/x/kubepods/burstable/pod{hash}")).as_deref(), Some(hash));
    }

    #[test]
    fn containers_and_other_cgroups_are_no_pods() {
        for path in [
            "/".to_owned(),
            "/sys/fs/cgroup/kubepods/burstable".to_owned(),
            format!("/sys/fs/cgroup/kubepods/burstable/pod{UID}/0123456789abcdef"),
            format!("/x/kubepods-pod{UID}.slice/cri-containerd-0123.scope"),
            "/x/podman".to_owned(),
            "/x/machine-pod1.slice".to_owned(),
            format!("/x/user-pod{UID}.slice"),
        ] {
            assert_eq!(uid_of(&path), None, "{path}");
        }
    }
}
