Feature: Try conforma before reading about it
  One command makes a signed release on this machine, validates it and shows what happened.

  Scenario: The demo passes and shows what the cache saved
    When "conforma demo" is run
    Then the exit status is 0
    And it prints "Result: WARNING"
    And it prints "This will become a failure starting on 2027-07-01T00:00:00Z"
    And it prints "20 layers"
    And it prints "each once"
    And it prints a line matching "run again +0 layers +0\.0 MB"

  Scenario Outline: A broken release is refused for the right reason
    When "conforma demo --break=<kind>" is run
    Then the exit status is 1
    And it prints "Result: FAILURE"
    And it prints "<component> has"
    And it prints "[Violation] <rule>"

    Examples:
      | kind                | component  | rule                                |
      | bad-signature       | payments   | builtin.image.signature_check       |
      | missing-attestation | search     | builtin.attestation.signature_check |
      | forbidden-file      | storefront | files.no_private_keys               |

  Scenario: A kept release can be served and validated again
    When "conforma demo --keep=kept" is run
    Then the exit status is 0
    When the kept release is served and its command is run
    Then the exit status is 0
    And it prints "Result: WARNING"

  Scenario: A directory that is in use is left alone
    Given the directory "kept" holds a file
    When "conforma demo --keep=kept" is run
    Then the exit status is 1
    And the error says "is not empty"

  Scenario: Nothing to serve
    When "conforma demo --serve=nowhere" is run
    Then the exit status is 1
    And the error says "holds no release of the demo"

  Scenario: An unknown way to break the release
    When "conforma demo --break=everything" is run
    Then the exit status is 1
    And the error says "bad-signature, missing-attestation, forbidden-file"
