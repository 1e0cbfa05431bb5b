Feature: Keep verdicts where the next run finds them
  A verdict that was signed and published spares the next validation of the same image under the
  same policy. Whatever is doubtful is validated again.

  Background:
    Given a signed and attested image "web"
    And a pinned policy that accepts everything
    And a ledger with its keys

  Scenario: A fresh verdict of the same policy spares validation
    When the release is validated and its verdicts are published
    Then it passes
    And "web" was validated
    When the release is validated and its verdicts are published
    Then it passes
    And "web" was skipped
    When "conforma ledger verify ledger --public-key=vsa.pub" is run
    Then the exit status is 0
    And it prints "4 bins, 2 summaries"

  Scenario: A verdict that is too old means another validation
    When the release is validated and its verdicts are published
    Then it passes
    When the release is validated, and verdicts older than "1ms" do not count
    Then it passes
    And "web" was validated
    When the release is validated, and verdicts older than "1h" do not count
    Then it passes
    And "web" was skipped

  Scenario: Another policy means another validation
    When the release is validated and its verdicts are published
    And the policy changes and refuses everything
    And the release is validated and its verdicts are published
    Then it is refused
    And "web" was validated

  Scenario: A verdict that anybody else signed is worth nothing
    When the release is validated and its verdicts are published
    And the release is validated with verdicts by another key
    Then it passes
    And "web" was validated

  Scenario: A ledger that was tampered with is not believed
    When the release is validated and its verdicts are published
    And the ledger's timestamp is damaged
    And the release is validated and its verdicts are published
    Then it passes
    And "web" was validated
