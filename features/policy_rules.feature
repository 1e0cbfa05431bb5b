Feature: Judge images by the rules of a policy
  A policy author writes rules in Rego and decides which of them apply.

  Scenario: A rule refuses an image
    Given a signed and attested image "web" with the label "stage" set to "beta"
    And a policy with the rule:
      """
      package stage

      # METADATA
      # title: Final images only
      # custom:
      #   short_name: final
      deny contains result if {
      	input.image.config.Labels.stage != "final"
      	result := {
      		"code": "stage.final",
      		"msg": sprintf("The image is in stage %s", [input.image.config.Labels.stage]),
      	}
      }
      """
    When "web" is validated
    Then it is refused
    And "Unnamed" has the violation "stage.final" because "The image is in stage beta"
    And the text report says "[Violation] stage.final"

  Scenario: A warning does not refuse an image
    Given a signed and attested image "web"
    And a policy with the rule:
      """
      package advice

      # METADATA
      # title: Advice
      # custom:
      #   short_name: better
      warn contains {"code": "advice.better", "msg": "It could be better"}
      """
    When "web" is validated
    Then it passes
    And "Unnamed" has the warning "advice.better" because "It could be better"

  Scenario Outline: A rule with a date warns before it and refuses from it on
    Given a signed and attested image "web"
    And a policy with the rule:
      """
      package dated

      # METADATA
      # title: Not any more
      # custom:
      #   short_name: outdated
      #   effective_on: "2090-01-01T00:00:00Z"
      deny contains {"code": "dated.outdated", "msg": "Too old."}
      """
    When "web" is validated with "--effective-time=<time>"
    Then <outcome>
    And "Unnamed" has the <kind> "dated.outdated" because "<reason>"

    Examples:
      | time                 | outcome       | kind      | reason                                                                |
      | now                  | it passes     | warning   | Too old. This will become a failure starting on 2090-01-01T00:00:00Z  |
      | 2090-01-02T00:00:00Z | it is refused | violation | Too old.                                                              |

  Scenario: A rule reads the files of an image
    Given a policy that reads every layer
    And a signed and attested image "clean" that holds the file "root/.ssh/known_hosts"
    And a signed and attested image "leaky" that holds the file "root/.ssh/id_rsa"
    When the release is validated
    Then it is refused
    And "clean" passes
    And "leaky" has the violation "layers.no_private_keys" because "found root/.ssh/id_rsa"

  Scenario: Rule data comes from the policy configuration
    Given a signed and attested image "web"
    And the rule data:
      """
      forbidden: [web, api]
      """
    And a policy with the rule:
      """
      package names

      # METADATA
      # title: Forbidden names
      # custom:
      #   short_name: forbidden
      deny contains result if {
      	some name in data.rule_data__configuration__.forbidden
      	input.image.config.Labels.name == name
      	result := {"code": "names.forbidden", "msg": sprintf("%s is forbidden", [name]), "term": name}
      }
      """
    When "web" is validated
    Then it is refused
    And "Unnamed" has the violation "names.forbidden" because "web is forbidden"

  Scenario: A policy that does not compile names file and line
    Given a signed and attested image "web"
    And a policy with the rule:
      """
      package broken

      deny contains result if {
      	result := no.such.function()
      }
      """
    When "web" is validated
    Then the exit status is 1
    And the error says "rule-0.rego:4"
    And the error says "no.such.function"
    And nothing looks like a bug

  Rule: Include and exclude choose the rules that count

    Background:
      Given a signed and attested image "web"
      And a policy with the rule:
        """
        package quality

        # METADATA
        # title: Short
        # custom:
        #   short_name: short
        #   collections: [strict]
        deny contains {"code": "quality.short", "msg": "Too short", "term": "name"}

        # METADATA
        # title: Quiet
        # custom:
        #   short_name: quiet
        deny contains {"code": "quality.quiet", "msg": "Too loud"}
        """

    Scenario: Everything counts unless something else is said
      When "web" is validated
      Then it is refused
      And "Unnamed" has the violation "quality.short"
      And "Unnamed" has the violation "quality.quiet"

    Scenario: An excluded package does not count
      Given the policy excludes "quality"
      And a policy that accepts everything
      When "web" is validated
      Then it passes

    Scenario: An excluded rule does not count
      Given the policy excludes "quality.quiet"
      And the policy excludes "quality.short:name"
      When "web" is validated
      Then it passes

    Scenario: Only what is included counts
      Given the policy includes "quality.quiet"
      When "web" is validated
      Then it is refused
      And "Unnamed" has the violation "quality.quiet"

    Scenario: A collection is included as a whole
      Given the policy includes "@strict"
      When "web" is validated
      Then it is refused
      And "Unnamed" has the violation "quality.short"

    Scenario: An include that matches nothing is reported
      Given the policy includes "quality.quiet"
      And the policy includes "misspelt"
      When "web" is validated
      Then the text report says "Include criterion 'misspelt' doesn't match any policy rule"
