//! An image on a base image: what of the base is read for it, and what it adds.

use drystone_store::digest::BlobDigest;
use drystone_store::realisation::Output;
use drystone_store::tree::{Kind, TreePath};

use super::base_layer::{self, ACCOUNT_PATHS, LayerTrees};
use super::view::StackView;
use super::{BuildError, BuildRequest, Builder, PlatformWork};
use crate::base::{Base, BaseError, BaseImages};
use crate::finish::accounts::AccountTexts;
use crate::image::LayerRef;
use crate::lock::Lock;
use crate::progress::Event;
use crate::spec::{self, Account, ImageReference, Platform};

/// A base image under an image, as far as it had to be read.
pub struct BaseWork {
    /// The base.
    pub base: Base,
    /// Its layers as trees, lowest first; none where nothing has to be known of its files.
    pub trees: Vec<Output>,
}

/// The digest of an image's base: as image.toml has it, else as the lock pins it.
pub fn base_digest(
    from: &ImageReference,
    image: &spec::Image,
    lock: &Lock,
) -> Result<BlobDigest, BaseError> {
    let locked = || {
        let base = lock.images.get(&image.name)?.base.as_ref()?;
        (base.from == from.to_string()).then_some(base.digest)
    };
    from.digest.or_else(locked).ok_or_else(|| BaseError::NotPinned { from: from.to_string() })
}

impl Builder<'_> {
    /// Reads the base of an image: its documents, and its files where these matter.
    pub(super) fn prepare_base(
        &self,
        request: &BuildRequest<'_>,
        from: &ImageReference,
        platform: Platform,
    ) -> Result<PlatformWork, BuildError> {
        let image = request.image;
        let text = format!("read the base image {from}");
        self.progress.event(Event::Phase { name: "base".into(), text });
        let images = BaseImages { store: self.store, source: self.bases };
        let base = images.open(from, &base_digest(from, image, request.lock)?, platform)?;
        if base.has_triggers() {
            let text = format!("{from} has ONBUILD instructions, which are not carried out");
            self.progress.event(Event::Warning { text });
        }
        let mut work = PlatformWork::empty();
        let mut trees = Vec::new();
        let needs_accounts = needs_accounts(image);
        if needs_accounts || !image.files.is_empty() {
            let layers = base_layer::realise(&images, &base)?;
            if needs_accounts {
                work.accounts = Some(self.base_accounts(&layers)?);
            }
            trees = layers.into_iter().map(|layer| layer.tree).collect();
        }
        self.progress.event(Event::Done { name: "base".into() });
        work.base = Some(BaseWork { base, trees });
        Ok(work)
    }

    /// The account files of a base, each from the layer that has it last.
    fn base_accounts(&self, layers: &[LayerTrees]) -> Result<AccountTexts, BuildError> {
        let view =
            StackView::new(self.store, layers.iter().map(|layer| &layer.tree).collect(), |_| 0)?;
        let mut texts: [String; ACCOUNT_PATHS.len()] = Default::default();
        for (path, text) in ACCOUNT_PATHS.iter().zip(&mut texts) {
            let path = TreePath::new(*path).expect("the four names are fixed and valid");
            let Some((number, Kind::File { .. })) =
                view.find(&path).map(|(number, entry)| (number, &entry.kind))
            else {
                continue;
            };
            self.store.read_tree(&layers[number].accounts, |entry, content| {
                if entry.path == path {
                    content
                        .read_to_string(text)
                        .map_err(|source| BuildError::Content { path: path.clone(), source })?;
                }
                Ok::<(), BuildError>(())
            })?;
        }
        let [passwd, group, shadow, gshadow] = texts;
        Ok(AccountTexts { passwd, group, shadow, gshadow })
    }
}

/// Whether the base's accounts decide something: numbers in `[config] user` stand for themselves.
fn needs_accounts(image: &spec::Image) -> bool {
    let user = image.config.user.as_ref();
    let by_number = |user: &spec::UserReference| {
        matches!((&user.user, &user.group), (Account::Id(_), Some(Account::Id(_))))
    };
    !image.users.is_empty() || !image.groups.is_empty() || user.is_some_and(|it| !by_number(it))
}

impl BaseWork {
    /// The base's layers as an image names them.
    pub fn layers(&self) -> Vec<LayerRef> {
        let layers = self.base.layers.iter().enumerate();
        let described = layers.map(|(at, layer)| LayerRef {
            digest: layer.digest,
            size: layer.size,
            diff_id: layer.diff_id,
            uncompressed_size: None,
            media_type: layer.media_type,
            title: format!("base layer {}", at + 1),
        });
        described.collect()
    }
}
