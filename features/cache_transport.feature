Feature: Take the layers of a release to a machine that has none
  A machine behind an air gap, or a fresh runner, is given what another machine has downloaded. Every
  byte is checked on the way out and on the way in.

  Background:
    Given 3 signed and attested images that share 2 layers
    And a policy that reads every layer
    When the release is validated

  Scenario Outline: The other machine downloads no layer
    When "conforma cache export <place>" is run
    And another machine imports "<place>" into its empty cache
    And the log is forgotten and the release is validated again with "--workers=4"
    Then all commands passed
    And no layer was downloaded
    And all reports are the same

    Examples:
      | place      |
      | layers     |
      | layers.tar |

  Scenario: Only the images of a snapshot are taken along
    When "conforma cache export --images=snapshot.json layers" is run
    Then the exit status is 0
    And it prints "3 images are complete"

  Scenario: A layer that was damaged on the way is left out and told
    When "conforma cache export layers" is run
    And the first shared layer in "layers" is bit-flipped
    And another machine imports "layers" into its empty cache
    Then the exit status is 1
    And it prints "bad, left out: blob sha256:"
    And the cache holds nothing but whole layers
    When the log is forgotten and the release is validated again with "--workers=4"
    Then it passes
    And 1 layer was downloaded

  Scenario: A layer that was damaged in the cache is not given to anybody
    When the first shared layer in the cache is bit-flipped
    And "conforma cache export layers" is run
    Then the exit status is 1
    And it prints "bad, left out: blob sha256:"
    When the release is validated
    Then it passes
    And the cache holds nothing but whole layers

  Scenario: The cache says what it was worth
    When the release is validated
    And "conforma cache info" is run
    Then it prints a line matching "^Hits: .* in 2 runs since "
    And it prints a line matching "^Saved: .* were downloaded in \d+ transfers"
