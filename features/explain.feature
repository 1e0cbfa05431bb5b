Feature: Find out why a rule counted or did not
  Somebody who sees a violation, or misses one, asks what the rule is, what it looked at, and
  which entry of the policy configuration decided.

  Background:
    Given a signed and attested image "web" with the label "stage" set to "test"
    And a policy with the rule:
      """
      package release

      # METADATA
      # title: Stage is production
      # description: Only images that were built for production are released.
      # custom:
      #   short_name: stage
      #   solution: Build the image with the label stage=production.
      deny contains result if {
      	stage := input.image.config.Labels.stage
      	stage != "production"
      	result := {"code": "release.stage", "msg": sprintf("The stage is %s", [stage])}
      }

      # METADATA
      # title: Has a name
      # custom:
      #   short_name: named
      deny contains result if {
      	input.component_name == ""
      	result := {"code": "release.named", "msg": "There is no name"}
      }
      """

  Scenario: A violation is explained with the rule, what it read and what to do
    When the rule "release.stage" is explained for the release
    Then the exit status is 0
    And it prints "Stage is production"
    And it prints "Only images that were built for production are released."
    And it prints "Build the image with the label stage=production."
    And it prints "stage != "production""
    And it prints a line matching "input\.image\.config\.Labels\.stage +"test""
    And it prints "Reported as a violation: The stage is test"
    And it prints "include 1 > exclude 0: kept"

  Scenario: An exclusion is named with its score
    Given the policy excludes "release.stage"
    When the release is validated
    Then it passes
    When the rule "release.stage" is explained for the release
    Then the exit status is 0
    And it prints a line matching "exclude +110 +release\.stage +\(config\.exclude\)"
    And it prints "include 1 < exclude 110: left out"

  Scenario: A rule that found nothing
    When the rule "release.named" is explained for the release
    Then the exit status is 0
    And it prints "Passed: the rule had nothing to say"

  Scenario: Checks of signatures are explained as well
    Given an image "api" without a signature
    When the rule "builtin.image.signature_check" is explained for "api" of the release
    Then the exit status is 0
    And it prints "no signatures found"
    And it prints "include and exclude do not concern it"

  Scenario: A code that no rule has
    When the rule "release.stages" is explained for the release
    Then the exit status is 1
    And the error says "no rule of the policy has the code"
    And the error says "did you mean release.stage"
