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

  Scenario: The disk of the cache is full
    Given the cache lives on a disk with room for 600 kB
    When the release is validated with "--workers=4"
    And the release is validated again with "--no-cache --workers=4"
    Then all commands passed
    And all reports are the same
    When the release is validated with "--workers=4"
    Then it passes
    And the error says "cannot keep everything: No space left on device"
    And the small disk holds nothing but whole layers

  Scenario: A cache that can only be read serves what it has
    When the release is validated
    And everything in the cache directory is noted
    And the cache is mounted read-only
    And the log is forgotten and the release is validated again with "--workers=4"
    Then it passes
    And no layer was downloaded
    And nothing in the cache directory has changed
    And all reports are the same

  Scenario: A cache that can only be read lacks a layer
    When the release is validated
    And the first shared layer is missing from the cache
    And everything in the cache directory is noted
    And the cache is mounted read-only
    And the log is forgotten and the release is validated again with "--workers=1"
    Then it passes
    And nothing in the cache directory has changed
    And all reports are the same

  Scenario: A neighbour is killed in the middle of a download
    Two processes share the directory. The one that downloads dies; the one that waits goes on
    from where it stopped.

    Given the registry stops in the middle of the first shared layer
    When one process is killed while it downloads that layer, and another one waits for it
    Then it passes
    And the first shared layer was asked for twice, the second time only its rest
    And the cache holds nothing but whole layers

  Scenario: A layer that is damaged in the registry is never accepted
    Given the first shared layer is damaged in the registry
    When the release is validated
    Then it could not be decided
    And the error says "digest mismatch"
    And the cache holds nothing but whole layers
