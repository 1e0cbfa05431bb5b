Feature: Tell an outage from a violation
  A registry that cannot be reached says nothing about an image. The run says which components
  could not be decided, judges the others, and exits with a status of its own.

  Background:
    Given a signed and attested image "web"
    And a signed and attested image "api"
    And a policy that reads every layer

  Scenario Outline: One component cannot be decided
    Given the registry answers <status> to everything about "api"
    When the release is validated with "--retry-max-retry=0"
    Then it could not be decided
    And "web" passes
    And "api" does not pass
    And the report or the error says why "api" was not decided
    And nothing looks like a bug

    Examples:
      | status |
      | 500    |
      | 503    |
      | 401    |

  Scenario: The layers of one component cannot be fetched
    Given the registry answers 502 to the layers of "api"
    When the release is validated with "--retry-max-retry=0"
    Then it could not be decided
    And "web" passes
    And the report or the error says why "api" was not decided

  Scenario: The registry is down
    Given the registry is down
    When the release is validated with "--retry-max-retry=0"
    Then it could not be decided
    And the report or the error says why "web" was not decided
    And the report or the error says why "api" was not decided
    And nothing looks like a bug

  Scenario: A short disturbance is not noticed
    Given the registry answers 503 to the first 2 requests
    When the release is validated with "--retry-duration=10ms"
    Then it passes

  Scenario: Ctrl-C ends the run and leaves the cache usable
    Given the registry hangs at a layer of "web"
    When the release is validated and interrupted while the registry hangs
    Then it was interrupted
    And the cache holds nothing but whole layers
    When the release is validated
    Then it passes
