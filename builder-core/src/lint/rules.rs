//! The table of rules. Names, descriptions and addresses of BuildKit's rules are BuildKit's.

use super::Origin;

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// As `# check=skip=` names it.
    pub name: &'static str,
    /// One sentence about all of its findings.
    pub description: &'static str,
    /// Where more is written about it.
    pub url: Option<&'static str>,
    /// Who had it first.
    pub origin: Origin,
    /// Whether it only counts where `experimental=` asks for it.
    pub experimental: bool,
    /// Codes of warnings of the parser and the planner that are findings of this rule.
    pub(super) codes: &'static [&'static str],
}

impl Rule {
    const fn buildkit(name: &'static str, description: &'static str, url: &'static str) -> Self {
        Self { name, description, url: Some(url), origin: Origin::BuildKit, experimental: false, codes: &[] }
    }

    const fn own(name: &'static str, description: &'static str) -> Self {
        Self { name, description, url: None, origin: Origin::Builder, experimental: false, codes: &[] }
    }

    const fn experimental(self) -> Self {
        Self { experimental: true, ..self }
    }

    const fn of(self, codes: &'static [&'static str]) -> Self {
        Self { codes, ..self }
    }
}

/// Returns the rule that a warning of the parser or the planner belongs to.
pub(crate) fn by_code(code: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.codes.contains(&code))
}

/// Declares the rules, and lists them.
macro_rules! rules {
    ($($constant:ident = $rule:expr;)*) => {
        $(pub(crate) static $constant: Rule = $rule;)*

        /// All rules, BuildKit's first.
        pub static RULES: &[&Rule] = &[$(&$constant),*];
    };
}

rules! {
    STAGE_NAME_CASING = Rule::buildkit(
        "StageNameCasing",
        "Stage names should be lowercase",
        "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
    );
    FROM_AS_CASING = Rule::buildkit(
        "FromAsCasing",
        "The 'as' keyword should match the case of the 'from' keyword",
        "https://docs.docker.com/go/dockerfile/rule/from-as-casing/",
    );
    NO_EMPTY_CONTINUATION = Rule::buildkit(
        "NoEmptyContinuation",
        "Empty continuation lines will become errors in a future release",
        "https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/",
    ).of(&["no-empty-continuation"]);
    CONSISTENT_INSTRUCTION_CASING = Rule::buildkit(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        "https://docs.docker.com/go/dockerfile/rule/consistent-instruction-casing/",
    );
    DUPLICATE_STAGE_NAME = Rule::buildkit(
        "DuplicateStageName",
        "Stage names should be unique",
        "https://docs.docker.com/go/dockerfile/rule/duplicate-stage-name/",
    );
    RESERVED_STAGE_NAME = Rule::buildkit(
        "ReservedStageName",
        "Reserved words should not be used as stage names",
        "https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/",
    ).of(&["reserved-stage-name"]);
    JSON_ARGS_RECOMMENDED = Rule::buildkit(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
    );
    MAINTAINER_DEPRECATED = Rule::buildkit(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/",
    );
    UNDEFINED_ARG_IN_FROM = Rule::buildkit(
        "UndefinedArgInFrom",
        "FROM command must use declared ARGs",
        "https://docs.docker.com/go/dockerfile/rule/undefined-arg-in-from/",
    );
    WORKDIR_RELATIVE_PATH = Rule::buildkit(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the \
         base image changes",
        "https://docs.docker.com/go/dockerfile/rule/workdir-relative-path/",
    );
    UNDEFINED_VAR = Rule::buildkit(
        "UndefinedVar",
        "Variables should be defined before their use",
        "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
    );
    MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule::buildkit(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
        "https://docs.docker.com/go/dockerfile/rule/multiple-instructions-disallowed/",
    );
    LEGACY_KEY_VALUE_FORMAT = Rule::buildkit(
        "LegacyKeyValueFormat",
        "Legacy key/value format with whitespace separator should not be used",
        "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
    );
    INVALID_BASE_IMAGE_PLATFORM = Rule {
        url: None,
        ..Rule::buildkit(
            "InvalidBaseImagePlatform",
            "Base image platform does not match expected target platform",
            "",
        )
    };
    REDUNDANT_TARGET_PLATFORM = Rule::buildkit(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        "https://docs.docker.com/go/dockerfile/rule/redundant-target-platform/",
    );
    SECRETS_USED_IN_ARG_OR_ENV = Rule::buildkit(
        "SecretsUsedInArgOrEnv",
        "Sensitive data should not be used in the ARG or ENV commands",
        "https://docs.docker.com/go/dockerfile/rule/secrets-used-in-arg-or-env/",
    );
    INVALID_DEFAULT_ARG_IN_FROM = Rule::buildkit(
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
        "https://docs.docker.com/go/dockerfile/rule/invalid-default-arg-in-from/",
    );
    FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule::buildkit(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/",
    );
    COPY_IGNORED_FILE = Rule::buildkit(
        "CopyIgnoredFile",
        "Attempting to Copy file that is excluded by .dockerignore",
        "https://docs.docker.com/go/dockerfile/rule/copy-ignored-file/",
    );
    INVALID_DEFINITION_DESCRIPTION = Rule::buildkit(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is \
         not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
        "https://docs.docker.com/go/dockerfile/rule/invalid-definition-description/",
    ).experimental();
    EXPOSE_PROTO_CASING = Rule::buildkit(
        "ExposeProtoCasing",
        "Protocol in EXPOSE instruction should be lowercase",
        "https://docs.docker.com/go/dockerfile/rule/expose-proto-casing/",
    );
    EXPOSE_INVALID_FORMAT = Rule::buildkit(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a \
         future release",
        "https://docs.docker.com/go/dockerfile/rule/expose-invalid-format/",
    );
    BROKEN_JSON_FORM = Rule::own(
        "BrokenJSONForm",
        "What looks like the JSON form and is none is taken as plain text, brackets and quotes included",
    ).of(&["broken-json-form"]);
    SEVERAL_SOURCES_WITHOUT_SLASH = Rule::own(
        "SeveralSourcesWithoutSlash",
        "The destination of several sources should end with a slash: if it is no directory, the build fails",
    );
    STAGE_NAME_TYPO = Rule::own(
        "StageNameTypo",
        "A name that is nearly that of a stage, and of no image that is known, is taken for an image",
    );
    OPTION_WITHOUT_EFFECT = Rule::own(
        "OptionWithoutEffect",
        "A flag or mount option that means nothing where it stands",
    ).of(&["keep-git-dir-unused", "mount-option-unused"]);
    UNKNOWN_CHECK_OPTION = Rule::own(
        "UnknownCheckOption",
        "What a check directive says should be understood: an unknown rule is neither skipped nor enabled",
    );
    WILDCARD_MATCHES_NOTHING = Rule::own(
        "WildcardMatchesNothing",
        "A pattern that no file of the build context matches copies nothing",
    );
    ADD_WITHOUT_CHECKSUM = Rule::own(
        "AddWithoutChecksum",
        "What ADD downloads should be known by its checksum: a server may answer something else tomorrow",
    ).experimental();
}
