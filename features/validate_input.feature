Feature: Judge documents by the rules of a policy
  Rules are not only about images: whoever writes a pipeline wants to know before it runs whether
  what it makes could be released.

  Background:
    Given a policy with the rule:
      """
      package pipeline

      # METADATA
      # title: Pinned tasks
      # custom:
      #   short_name: pinned
      deny contains result if {
      	some task in input.spec.tasks
      	not task.taskRef.version
      	result := {"code": "pipeline.pinned", "msg": sprintf("Task %s has no version", [task.name])}
      }
      """

  Scenario: One of two pipelines breaks a rule
    Given the document "good.yaml":
      """
      spec: {tasks: [{name: init, taskRef: {name: init, version: "0.1"}}]}
      """
    And the document "bad.json":
      """
      {"spec": {"tasks": [{"name": "build", "taskRef": {"name": "build"}}]}}
      """
    When the documents "good.yaml" and "bad.json" are validated
    Then it is refused
    And the document "bad.json" has the violation "pipeline.pinned" because "Task build has no version"
    And the document "good.yaml" has no violations

  Scenario: A document that cannot be read has no verdict
    Given the document "good.yaml":
      """
      spec: {tasks: []}
      """
    When the documents "good.yaml" and "missing.yaml" are validated
    Then the exit status is 1
    And there is no report
    And the error says "unable to parse the provided input file: missing.yaml"
