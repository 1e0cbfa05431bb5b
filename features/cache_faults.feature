Feature: A damaged cache costs time, never an answer
  Whatever happens to the cache directory, a verdict is based on bytes whose digest was checked.

  Background:
    Given 3 signed and attested images that share 2 layers
    And a policy that reads every layer

  Scenario Outline: A damaged layer is downloaded again
    When the release is validated
    And the first shared layer in the cache is <damage>
    And the log is forgotten and the release is validated again with "--workers=4"
    Then it passes
    And 1 layer was downloaded
    And the cache holds nothing but whole layers
    And all reports are the same

    Examples:
      | damage      |
      | truncated   |
      | empty       |
      | bit-flipped |

  Scenario: A cache directory that cannot be used
    Given there is a file where the cache directory should be
    When the release is validated
    Then it passes
    And nothing looks like a bug

  Scenario: A layer that is damaged in the registry is never accepted
    Given the first shared layer is damaged in the registry
    When the release is validated
    Then it could not be decided
    And the error says "digest mismatch"
    And the cache holds nothing but whole layers
