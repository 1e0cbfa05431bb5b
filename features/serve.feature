Feature: Let other programs pull through the layer cache
  A server on this machine hands out the images of a registry. It downloads each layer once,
  however many clients want it, and never hands out what is not what it claims to be.

  Background:
    Given 3 signed and attested images that share 2 layers
    And a policy that reads every layer
    And a server that pulls through the cache

  Scenario: Many clients, one download
    When 4 clients pull every image from the server at once
    Then every client got what the registry has
    And every layer was downloaded exactly once

  Scenario: A release is validated through the server
    When the release is validated through the server with "--no-cache"
    Then it passes
    And the report has 3 components
    And every layer was downloaded exactly once

  Scenario: What was pulled once stays available
    When a client pulls every image from the server
    And the registry is shut down
    And a client pulls every image from the server
    Then every client got what the registry has

  Scenario: A damaged layer reaches nobody
    Given the first shared layer is damaged in the registry
    When a client pulls every image from the server
    Then no client got the damaged layer

  Scenario: Nothing can be changed through the server
    When a client pushes an image to the server
    Then the client is refused with 405

  Scenario: An image that is not in the registry is not in the server
    When a client asks the server for an image that does not exist
    Then the client is refused with 404

  Scenario: It ends when it is told to
    When the server is told to stop
    Then the exit status is 0
