Feature: Validate a release where its registry is out of reach
  A release is carried to another place with everything that validating it needs. There it gets
  the verdict it would get at home, and what is missing is named, never guessed.

  Background:
    Given 3 signed and attested images that share 2 layers
    And a policy that reads every layer

  Scenario Outline: A mirrored release gets the same report without a network
    When the release is validated
    And the release is mirrored to "<place>"
    And the registry is shut down
    And the release is validated again with "--offline --mirror-from=<place> --no-cache"
    Then all commands passed
    And all reports are the same

    Examples:
      | place                 |
      | oci:shelf             |
      | oci-archive:shelf.tar |

  Scenario: The policy is carried along
    Given the policy is pushed to the registry as "rules"
    When the release and its policy are mirrored to "oci:shelf"
    And the registry is shut down
    And the release is validated with "--offline --mirror-from=oci:shelf"
    Then it passes
    And the report names the digest of the policy

  Scenario: A bad image is as bad in the mirror
    Given an image "stranger" signed and attested by somebody else
    And an image "bare" without attestations
    When the release is mirrored to "oci:shelf"
    And the registry is shut down
    And the release is validated with "--offline --mirror-from=oci:shelf"
    Then it is refused
    And "stranger" has the violation "builtin.image.signature_check" because "No image signatures found matching the given public key"
    And "bare" has the violation "builtin.attestation.signature_check" because "no matching attestations"
    And "component-00" passes

  Scenario: What was not mirrored is named, and the rest is judged
    When the release is mirrored to "oci:shelf"
    And another signed and attested image "late" joins the release
    And the release is validated with "--offline --mirror-from=oci:shelf"
    Then it could not be decided
    And the report or the error says why "late" was not decided
    And the error says "needed, but this run is offline"
    And "component-00" passes

  Scenario: A second run moves only what is missing
    When the release is mirrored to "oci:shelf"
    And another signed and attested image "late" joins the release
    And the log is forgotten and the release is mirrored again to "oci:shelf"
    Then the exit status is 0
    And only the layers of "late" were downloaded

  Scenario: A damaged layer is not carried anywhere
    Given the first shared layer is damaged in the registry
    When the release is mirrored to "oci:shelf"
    Then the exit status is 3
    And the error says "digest mismatch"
    And the error says "component-01"
    When the release is validated with "--offline --mirror-from=oci:shelf"
    Then it could not be decided
