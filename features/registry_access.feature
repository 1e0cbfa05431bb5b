Feature: Use the credentials people already have
  Whoever has logged in with docker or podman needs no further settings.

  Background:
    Given a signed and attested image "web"
    And a policy that reads every layer

  Scenario Outline: A registry that wants credentials gets them
    Given the registry wants <kind>
    And the user has logged in to the registry
    When "web" is validated
    Then it passes

    Examples:
      | kind              |
      | basic credentials |
      | bearer tokens     |

  Scenario Outline: Without the right credentials nothing is decided
    Given the registry wants <kind>
    And <login>
    When "web" is validated with "--retry-max-retry=0"
    Then it could not be decided
    And nothing looks like a bug
    And no secret is shown

    Examples:
      | kind              | login                                        |
      | basic credentials | nobody has logged in                         |
      | bearer tokens     | nobody has logged in                         |
      | basic credentials | the user has logged in with a wrong password |
      | bearer tokens     | the user has logged in with a wrong password |
