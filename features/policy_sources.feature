Feature: Keep policies where people work on them
  A policy may live in git, in a registry or in a directory. The report names exactly what was used.

  Background:
    Given a signed and attested image "web"
    And a policy that accepts everything

  Scenario: A policy in a git repository
    Given the policy is kept in the git repository "rules"
    When "web" is validated
    Then it passes
    And the report names the commit of the policy

  Scenario: A policy in a registry
    Given the policy is pushed to the registry as "team/policy"
    When "web" is validated
    Then it passes
    And the report names the digest of the policy

  Scenario: A policy in a directory
    When "web" is validated
    Then it passes
