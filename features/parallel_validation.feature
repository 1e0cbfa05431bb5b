Feature: Validate many images at once with the layer cache on
  Images of one release share most of their layers. Validating them in parallel downloads and
  unpacks each layer once, and never lets one component see what another has half written.

  Background:
    Given 20 signed and attested images that share 6 layers
    And a policy that reads every layer

  Scenario: Eight workers download each layer once
    When the release is validated with "--workers=8"
    Then it passes
    And the report has 20 components
    And every layer was downloaded exactly once

  Scenario: Two processes with one cache directory download each layer once
    When 2 processes validate the release at once with "--workers=8"
    Then all commands passed
    And every layer was downloaded exactly once
    And all reports are the same

  Scenario: A second run downloads nothing
    When the release is validated with "--workers=8"
    And the log is forgotten and the release is validated again with "--workers=8"
    Then it passes
    And no layer was downloaded

  Scenario: The cache does not influence the report
    When the release is validated with "--workers=8"
    And the release is validated again with "--workers=8"
    And the release is validated again with "--workers=1"
    And the release is validated again with "--no-cache --workers=8"
    And the cache directory is made read-only
    And the release is validated again with "--workers=8"
    Then all commands passed
    And all reports are the same

  Scenario: Without the cache every component downloads its own
    When the release is validated with "--no-cache --workers=8"
    Then it passes
    And every shared layer was downloaded by every component

  Scenario: A finding in a shared layer is found in every image
    Given a policy with the rule:
      """
      package shared

      # METADATA
      # title: No shared files
      # custom:
      #   short_name: none
      deny contains result if {
      	some entry in conforma.oci.image_tree(input.image.ref, {"paths": ["opt/shared-*"]})
      	result := {"code": "shared.none", "msg": entry.path, "term": entry.path}
      }
      """
    When the release is validated with "--workers=8"
    Then it is refused
    And every component has 6 times the violation "shared.none"
