Feature: Validate an image before its release
  A release manager wants to know whether an image may be released: it must be signed and
  attested by the right key, and obey the rules of a policy.

  Background:
    Given a policy that accepts everything

  Scenario: A signed and attested image passes
    Given a signed and attested image "web"
    When "web" is validated
    Then it passes
    And "Unnamed" has the success "builtin.image.signature_check"
    And "Unnamed" has the success "builtin.attestation.signature_check"
    And "Unnamed" has the success "builtin.attestation.syntax_check"
    And "Unnamed" has the success "main.anything"
    And the text report says "Result: SUCCESS"

  Scenario: Entries of the transparency log are verified without asking the log
    Given signatures are recorded in a transparency log
    And a signed and attested image "web"
    When "web" is validated
    Then it passes

  Scenario Outline: Provenance in both formats of SLSA is accepted
    Given a signed and attested image "web" with provenance in SLSA <version>
    When "web" is validated
    Then it passes

    Examples:
      | version |
      | v0.2    |
      | v1      |

  Scenario: An image without a signature is refused
    Given an image "web" without a signature
    When "web" is validated
    Then it is refused
    And "Unnamed" has the violation "builtin.image.signature_check" because "no signatures found"
    And "Unnamed" has the success "builtin.attestation.signature_check"

  Scenario: An image without attestations is refused
    Given an image "web" without attestations
    When "web" is validated
    Then it is refused
    And "Unnamed" has the violation "builtin.attestation.signature_check" because "no matching attestations"
    And "Unnamed" has the success "builtin.image.signature_check"

  Scenario: An image signed by somebody else is refused
    Given an image "web" signed and attested by somebody else
    When "web" is validated
    Then it is refused
    And "Unnamed" has the violation "builtin.image.signature_check" because "No image signatures found matching the given public key"
    And "Unnamed" has the violation "builtin.attestation.signature_check" because "No image attestations found matching the given public key"

  Scenario: A signature made for another image is refused
    Given a signed and attested image "web"
    And an image "copy" without a signature
    And the signature of "copy" was copied from "web"
    When "copy" is validated
    Then it is refused
    And "Unnamed" has the violation "builtin.image.signature_check" because "invalid or missing digest in claim"

  Scenario: Attestations made for another image are refused
    Given a signed and attested image "web"
    And an image "copy" without attestations
    And the attestations of "copy" were copied from "web"
    When "copy" is validated
    Then it is refused
    And "Unnamed" has the violation "builtin.attestation.signature_check" because "no matching subject digest found"

  Scenario: An image that does not exist is refused
    Given an image "web" that was never pushed
    When "web" is validated
    Then it is refused
    And "Unnamed" has the violation "builtin.image.accessible"

  Scenario: One bad component does not hide the others
    Given a signed and attested image "web"
    And an image "api" without a signature
    And a signed and attested image "worker"
    When the release is validated
    Then it is refused
    And the report has 3 components
    And "web" passes
    And "worker" passes
    And "api" does not pass

  Scenario: Failing can be left to the reader of the report
    Given an image "web" without a signature
    When "web" is validated with "--strict=false"
    Then the exit status is 0
    And "Unnamed" does not pass

  Scenario: An image for several platforms is validated for each of them
    Given a signed and attested image "web" for the platforms linux/amd64 and linux/arm64
    When the release is validated
    Then it passes
    And the report has 3 components
    And the report names a component matching "web-sha256:[0-9a-f]{64}-arm64"
    And the report names a component matching "web-sha256:[0-9a-f]{64}-amd64"
